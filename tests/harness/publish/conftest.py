"""Students as trainings leave them, each made once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dskd
from harness.steps.create_model import new_model
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece

CHAT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# Heads of 32 numbers: vLLM on a CPU has no smaller ones.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student with another vocabulary, both with a chat template, and a training file."""
    folder = tmp_path_factory.mktemp("publish-world")
    for seed, (name, tokenizer) in enumerate({"teacher": byte_level(), "cross": sentencepiece()}.items()):
        tokenizer.chat_template = CHAT.replace("<|end|>", tokenizer.eos_token)
        tokenizer.save_pretrained(folder / "tokenizers" / name)
        new_model(CONFIG, folder / "tokenizers" / name, seed, folder / name)
    rows = [{"prompt": line[:8], "output": line[8:24]} for line in LINES]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def trained(world: Path, output: Path, **changes: Any) -> Path:
    """A student that was trained into `output`; its model's folder."""
    asked: dict[str, Any] = {
        "teacher": world / "teacher",
        "student": world / "cross",
        "dataset": world / "train.jsonl",
        "method": "dskd-v2-eta",
        "steps": 2,
        "batch_size": 4,
        "progress": False,
    }
    dskd.distill(**(asked | changes), output=output)
    return output / "model"


@pytest.fixture(scope="session")
def student(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained on whole prompts."""
    return trained(world, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="session")
def chat_student(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained in its chat template."""
    data = [{"instruction": f"Say {k}", "output": f"It is {k}."} for k in range(4)]
    template = {"kind": "chat", "system": "Be brief."}
    return trained(world, tmp_path_factory.mktemp("chat"), dataset=data, template=template)


@pytest.fixture(scope="session")
def adapted_student(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained as an adapter."""
    output = tmp_path_factory.mktemp("adapted")
    folder = trained(world, output, lora={"rank": 2}, learning_rate=1e-2)
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    return folder

"""Quantised models: what this machine cannot load is refused in a line, before the weights are read; FP8 answers without its GPU."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from dskd.errors import InputError
from dskd.modeling.loading import load_model
from dskd.modeling.quantised import require_quantisation
from helpers.tiny_tokenizers import byte_level

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "fmt": "e4m3"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama that is not quantised."""
    folder = tmp_path_factory.mktemp("plain")
    tokenizer = byte_level()
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _said(plain: Path, to: Path, quantisation: dict[str, Any]) -> Path:
    shutil.copytree(plain, to)
    config = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | {"quantization_config": quantisation}))
    return to


@pytest.mark.parametrize(
    ("quantisation", "package"), [(GPTQ, "optimum"), (AWQ, "gptqmodel"), ({"quant_method": "torchao"}, "torchao")]
)
def test_a_missing_package_is_named(plain: Path, tmp_path: Path, quantisation: dict[str, Any], package: str) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed here")
    method = quantisation["quant_method"]
    folder = _said(plain, tmp_path / "quantised", quantisation)
    for read in (require_quantisation, load_model):
        with pytest.raises(
            InputError, match=rf"is quantised \({method}\) and cannot be loaded here: .*; fix: "
        ) as raised:
            read(folder)
        assert "\n" not in str(raised.value)
        if method != "torchao":  # whose own message is about the key that is missing
            assert package in str(raised.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_missing_gpu_is_named(plain: Path, tmp_path: Path) -> None:
    folder = _said(plain, tmp_path / "quantised", {"quant_method": "fbgemm_fp8"})
    with pytest.raises(InputError, match=r"\(fbgemm_fp8\) and cannot be loaded here: .*GPU.*; fix: .*not quantised"):
        load_model(folder)


def test_a_description_without_a_method_is_one_line(plain: Path, tmp_path: Path) -> None:
    folder = _said(plain, tmp_path / "quantised", {"group_size": 64, "bits": 4})
    with pytest.raises(InputError, match=r"is quantised \(None\) and cannot be loaded here: .*quant_method.*; fix: "):
        load_model(folder)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, which computes in FP8")
def test_an_fp8_model_answers_on_a_processor(plain: Path, tmp_path: Path) -> None:
    """Its weights are stored as 8-bit numbers with a scale for each block; transformers multiplies them out."""
    folder = _said(plain, tmp_path / "quantised", FP8)
    stored = {}
    for name, weight in load_file(plain / "model.safetensors").items():
        if name.endswith("proj.weight"):
            scale = weight.abs().max() / torch.finfo(torch.float8_e4m3fn).max
            stored[name] = (weight / scale).to(torch.float8_e4m3fn)
            stored[f"{name}_scale_inv"] = scale.reshape(1, 1)
        else:
            stored[name] = weight
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    ids = torch.arange(9)[None]
    with torch.no_grad():
        exact, rounded = (load_model(each)(input_ids=ids).logits.float() for each in (plain, folder))
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, atol=0.02, rtol=0.1)

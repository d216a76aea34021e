"""The first layers of a model as a model of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.errors import InputError
from dskd.modeling.loading import load_model, load_tokenizer
from harness.steps.create_model import new_model
from harness.steps.first_layers import first_layers
from helpers.causal_models import SIZE, small_model
from helpers.llama_folders import change_json, write_adapter

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
GEMMA = {
    "model_type": "gemma3_text",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "sliding_window": 8,
}
GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 3, "n_head": 2, "n_positions": 64}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from harness.smallworld.tokenizers import write_byte_level

    folder = tmp_path_factory.mktemp("tokenizer")
    write_byte_level(folder, ["some text to learn from, twelve words or so, and numbers 1234567890"] * 5)
    return folder


@pytest.mark.parametrize(("config", "count"), [(LLAMA, 1), (GEMMA, 2), (GPT2, 2)], ids=["llama", "gemma3", "gpt2"])
def test_first_layers_compute_what_the_whole_model_computes_up_to_there(
    tokenizer: Path, tmp_path: Path, config: dict[str, Any], count: int
) -> None:
    new_model(config, tokenizer, 1, tmp_path / "whole")
    first_layers(tmp_path / "whole", count, tmp_path / "part")
    whole, part = load_model(tmp_path / "whole").eval(), load_model(tmp_path / "part").eval()
    assert part.config.num_hidden_layers == count
    if getattr(whole.config, "layer_types", None):
        assert part.config.layer_types == whole.config.layer_types[:count]
    ids = torch.arange(12)[None]
    norm = next(m for name, m in whole.base_model.named_children() if name in {"norm", "ln_f"})
    with torch.no_grad():
        states = whole(ids, output_hidden_states=True).hidden_states
        expected = whole.lm_head(norm(states[count]))
        assert torch.allclose(part(ids).logits, expected, atol=1e-5)
    assert (tmp_path / "part/tokenizer.json").is_file()


def test_more_layers_than_there_are(tokenizer: Path, tmp_path: Path) -> None:
    new_model(LLAMA, tokenizer, 1, tmp_path / "whole")
    with pytest.raises(InputError, match="has 2 layers, not 5; ask for fewer"):
        first_layers(tmp_path / "whole", 5, tmp_path / "part")


def cut(kind: str, tokenizer: Path, folder: Path, count: int) -> tuple[Any, Any]:
    """A small model of an architecture and its first layers, both loaded from folders."""
    small_model(kind).save_pretrained(folder / "whole")
    load_tokenizer(tokenizer).save_pretrained(folder / "whole")
    first_layers(folder / "whole", count, folder / "part")
    return load_model(folder / "whole").eval(), load_model(folder / "part").eval()


@pytest.mark.parametrize(
    "kind", ["mamba", "mamba2", "falcon_h1", "gpt_neo", "opt", "bart", "mpt", "qwen3_moe", "exaone_moe"]
)
def test_layers_are_found_wherever_an_architecture_keeps_them(kind: str, tokenizer: Path, tmp_path: Path) -> None:
    whole, part = cut(kind, tokenizer, tmp_path, 1)
    first, second = whole.state_dict(), part.state_dict()
    assert second.keys() < first.keys()
    assert not any(".1." in name for name in second)
    assert all(torch.equal(value, first[name]) for name, value in second.items())
    ids = torch.arange(5)[None] % SIZE
    assert part(ids).logits.shape == whole(ids).logits.shape


@pytest.mark.parametrize("kind", ["jamba", "rwkv", "gpt_neox_japanese"])
def test_layers_that_make_no_model_are_one_line(kind: str, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"whole: the first 1 of 2 layers of \w+ make no model \(.+\); fix: ask for another"
    ):
        cut(kind, tokenizer, tmp_path, 1)


def test_settings_that_could_not_be_saved_and_the_end_come_along(tokenizer: Path, tmp_path: Path) -> None:
    new_model(LLAMA, tokenizer, 1, tmp_path / "whole")
    end = load_tokenizer(tokenizer).eos_token_id
    change_json(tmp_path / "whole/generation_config.json", temperature=0.9, eos_token_id=end + 1)
    change_json(tmp_path / "whole/config.json", eos_token_id=end + 1)
    first_layers(tmp_path / "whole", 1, tmp_path / "part")
    settings = json.loads((tmp_path / "part/generation_config.json").read_text())
    assert (settings["do_sample"], settings["temperature"]) == (True, 0.9)
    assert settings["eos_token_id"] == [end, end + 1]
    assert json.loads((tmp_path / "part/config.json").read_text())["eos_token_id"] == end


def test_the_first_layers_of_an_adapter_are_those_of_the_merged_model(tokenizer: Path, tmp_path: Path) -> None:
    new_model(LLAMA, tokenizer, 1, tmp_path / "whole")
    first_layers(write_adapter(tmp_path / "adapter", tmp_path / "whole"), 1, tmp_path / "part")
    merged, part = (load_model(tmp_path / name).state_dict() for name in ("adapter", "part"))
    assert all(torch.equal(value, merged[name]) for name, value in part.items())
    assert (tmp_path / "part/tokenizer.json").is_file()

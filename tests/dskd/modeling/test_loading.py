"""A model is loaded with every weight from its folder, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.errors import InputError
from dskd.modeling.loading import load_config, load_model, load_tokenizer
from helpers.causal_models import small_model
from helpers.llama_folders import change_json, change_weights, write_adapter, write_llama
from helpers.tiny_tokenizers import byte_level

Weights = dict[str, torch.Tensor]


def refused(folder: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "fix: " in str(caught.value)


def without(*parts: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: value for name, value in weights.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("lm_head"), r"1 weights of LlamaForCausalLM are missing and would be random \(lm_head\.weight\)"),
        (
            without("self_attn"),
            r"8 weights of LlamaForCausalLM are missing .*\(model\.layers\.0\.self_attn\.k_proj\.weight, .*, …\)",
        ),
        (
            lambda weights: {name.replace("mlp", "ffn"): value for name, value in weights.items()},
            r"6 weights .* missing .*down_proj.*; 6 weights in it have no place in LlamaForCausalLM \(model\.layers\.0\.ffn\.down",
        ),
        (
            lambda weights: weights | {"model.norm.weight": torch.ones(7)},
            r"1 weights have another shape .*\(model\.norm\.weight is \[7\], and by the configuration \[32\]\)",
        ),
        (
            lambda weights: weights | {"model.extra.weight": torch.ones(7)},
            r"1 weights in it have no place .*\(model\.extra\.weight",
        ),
    ],
)
def test_weights_that_are_missing_misnamed_or_of_another_shape_are_named(
    folder: Path, change: Callable[[Weights], Weights], words: str
) -> None:
    load_model(folder)
    change_weights(folder, change)
    refused(folder, words)


def test_a_tied_head_is_not_missing(tmp_path: Path) -> None:
    folder = write_llama(tmp_path, tie_word_embeddings=True)
    model = load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_old_buffers_that_transformers_leaves_out_are_no_mistake(folder: Path) -> None:
    change_weights(folder, lambda weights: weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    load_model(folder)


def test_the_decoder_of_a_model_with_an_encoder_is_not_the_model(tmp_path: Path) -> None:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_model"), 32)
    heads = dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads", "encoder_layers", "decoder_layers"), 2)
    BartForConditionalGeneration(BartConfig(vocab_size=64, **sizes, **heads)).save_pretrained(tmp_path)
    refused(tmp_path, r"weights in it have no place in BartForCausalLM \(final_logits_bias, model\.encoder\.")


def test_a_sentence_encoder_has_no_head(tmp_path: Path) -> None:
    small_model("roberta").roberta.save_pretrained(tmp_path)
    refused(tmp_path, r"weights of RobertaForCausalLM are missing and would be random \(lm_head\.")


@pytest.mark.parametrize("content", [b"", b"no pickle at all", b"\x80\x04half"])
def test_a_broken_pickle_is_one_line(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    refused(folder, r"no causal model can be loaded \(.+\); fix: ")


def test_a_pickle_of_the_weights_is_checked_as_they_are(folder: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    model = load_model(folder)
    assert torch.equal(model.lm_head.weight, weights["lm_head.weight"])
    torch.save(without("lm_head")(weights), folder / "pytorch_model.bin")
    refused(folder, r"missing and would be random \(lm_head\.weight\)")
    change_json(folder / "config.json", vocab_size=464)
    torch.save(weights, folder / "pytorch_model.bin")
    refused(
        folder,
        r"2 weights have another shape .*\(lm_head\.weight is \[392, 32\], and by the configuration \[464, 32\]\)",
    )


def test_memory_that_runs_out_is_no_mistake_of_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    def fails(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fails)
    with pytest.raises(torch.OutOfMemoryError):
        load_model(folder)


def test_a_configuration_of_an_unknown_kind_is_one_line(folder: Path) -> None:
    assert load_config(folder).vocab_size == 392
    change_json(folder / "config.json", model_type="of-another-world")
    with pytest.raises(InputError, match=r"config\.json: transformers cannot read it \(.*of-another-world.*\); fix: "):
        load_config(folder)


def test_the_dtype_of_the_weights_may_be_kept(folder: Path) -> None:
    change_weights(folder, lambda weights: {name: value.bfloat16() for name, value in weights.items()})
    change_json(folder / "config.json", dtype="bfloat16")
    assert load_model(folder, "auto").dtype == torch.bfloat16
    assert load_model(folder).dtype == torch.float32


# --- adapters ---


def adapter_weights(folder: Path, change: Callable[[Weights], Weights]) -> None:
    file = folder / "adapter_model.safetensors"
    file.rename(folder / "model.safetensors")
    change_weights(folder, change)
    (folder / "model.safetensors").rename(file)


def test_an_adapter_without_tokenizer_is_merged_into_its_base(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama)
    before, after = load_model(llama), load_model(adapter)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before.state_dict()[name], after.state_dict()[name])
    assert after.state_dict().keys() == before.state_dict().keys()
    assert load_config(adapter).vocab_size == 392


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("layers.1."), r"does not fit its base model: 2 weights are missing in it \(.*layers\.1\..*lora_A"),
        (
            lambda weights: {name.replace("q_proj", "query"): value for name, value in weights.items()},
            r"does not fit its base model: 4 weights are missing in it",
        ),
        (
            lambda weights: weights | {"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": torch.ones(4, 32)},
            r"does not fit its base model: 1 weights of it have no place there \(.*mlp\.up_proj",
        ),
    ],
)
def test_an_adapter_whose_weights_are_not_all_used_is_refused(
    llama: Path, tmp_path: Path, change: Callable[[Weights], Weights], words: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama)
    load_model(adapter)
    adapter_weights(adapter, change)
    refused(adapter, words)


def test_an_adapter_with_weights_of_its_own_beside_the_low_ranks_is_merged(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, modules_to_save=["embed_tokens"])
    assert load_model(adapter).lm_head.weight.shape == (392, 32)


def test_a_tokenizer_of_added_tokens_alone_is_one_line(tmp_path: Path) -> None:
    """As a folder without tokenizer.json loads, which would drop all text without a word."""
    tokenizer = byte_level()
    tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer.json").read_text())
    settings["model"] |= {"vocab": {}, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"added tokens alone, and no vocabulary; fix: add tokenizer\.json"):
        load_tokenizer(tmp_path)

"""The head alone, read from its shard: the same numbers as of the loaded model, of any architecture, and no layer of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dskd.errors import InputError
from dskd.modeling.head_alone import find_head, read_head
from dskd.modeling.lm_head import Head, output_head
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.tokenization.vocabulary import Vocabulary
from helpers.causal_models import KINDS, SIZE, small_model
from helpers.llama_folders import LFS_POINTER, change_json, change_weights, write_adapter, write_llama
from helpers.made_models import MadeModels
from helpers.text_and_image_models import write_text_and_image

Weights = dict[str, Any]
# No class of transformers loads a saved one as a language model.
NOT_LOADED = {"mllama"}


@pytest.fixture(scope="module")
def words(llama: Path) -> Vocabulary:
    """The vocabulary of the Llama's tokenizer."""
    return Vocabulary.from_tokenizer(load_tokenizer(llama))


def alone(folder: Path, vocabulary: Vocabulary, dtype: str = "float32") -> tuple[Head, Tensor]:
    head, embedding = read_head(folder, vocabulary, dtype=dtype, device="cpu", embedding=True)
    assert embedding is not None
    return head, embedding


def same_as_loaded(folder: Path, vocabulary: Vocabulary, dtype: str = "float32", loaded: Path | None = None) -> None:
    """The head and the embedding of a folder are, bit by bit, those of the loaded model."""
    model = load_model(loaded or folder, dtype)
    rows = model.get_output_embeddings().weight.shape[0]
    expected = output_head(model, vocabulary.truncate_to_head(rows, str(folder)).size)
    table = model.get_input_embeddings().weight
    head, embedding = alone(folder, vocabulary, dtype)
    assert head.weight.dtype == expected.weight.dtype
    assert torch.equal(head.weight, expected.weight)
    assert embedding.dtype == table.dtype
    assert torch.equal(embedding, table)
    assert (embedding is head.weight) == (table is expected.weight), "tied weights are held once"
    assert (head.bias is None) == (expected.bias is None)
    if head.bias is not None and expected.bias is not None:
        assert torch.equal(head.bias, expected.bias)
    assert (head.scale, head.softcap, head.size) == (expected.scale, expected.softcap, expected.size)
    assert read_head(folder, vocabulary, dtype=dtype, device="cpu")[1] is None


def refused(folder: Path, vocabulary: Vocabulary, match: str, **arguments: Any) -> None:
    with pytest.raises(InputError, match=match) as raised:
        read_head(folder, vocabulary, dtype="float32", device="cpu", **arguments)
    assert "\n" not in str(raised.value)
    assert "fix: " in str(raised.value)


class _Whole(Vocabulary):
    """So many tokens, whatever they are."""

    def __init__(self, size: int) -> None:
        object.__setattr__(self, "tokens", [b""] * size)

    def truncate_to_head(self, rows: int, name: str) -> Vocabulary:
        return self


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_LOADED])
def test_the_head_alone_is_that_of_the_loaded_model(kind: str, tmp_path: Path) -> None:
    small_model(kind).save_pretrained(tmp_path)
    same_as_loaded(tmp_path, _Whole(SIZE), "bfloat16")


@pytest.mark.parametrize("kind", ["gemma3", "mistral3", "qwen2_5_vl"])
def test_the_language_part_of_a_model_of_text_and_images(kind: str, words: Vocabulary, tmp_path: Path) -> None:
    write_text_and_image(tmp_path, kind)
    same_as_loaded(tmp_path, words)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_padded_rows_stay_and_the_size_is_that_of_the_tokenizer(
    words: Vocabulary, tmp_path: Path, tied: bool, dtype: str
) -> None:
    write_llama(tmp_path, vocab_size=448, tie_word_embeddings=tied)
    same_as_loaded(tmp_path, words, dtype)
    head, _ = alone(tmp_path, words, dtype)
    hidden = torch.ones(2, 32)
    assert (len(head.weight), head.size) == (448, 392)
    assert head.logits(hidden).shape == (2, 392)
    assert head.logits(hidden, padded=True).shape == (2, 448)


def test_names_without_the_prefix_of_the_model_that_has_a_head(llama: Path, words: Vocabulary, tmp_path: Path) -> None:
    """As the oldest GPT-2 has them."""
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    change_weights(folder, lambda weights: {name.removeprefix("model."): value for name, value in weights.items()})
    same_as_loaded(folder, words)


def test_a_tied_head_may_be_stored_under_its_own_name_or_under_both(words: Vocabulary, tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "tied", tie_word_embeddings=True)
    (table,) = (v for name, v in load_file(folder / "model.safetensors").items() if "embed_tokens" in name)
    change_weights(folder, lambda weights: weights | {"lm_head.weight": table.clone()})
    same_as_loaded(folder, words)
    change_weights(folder, lambda weights: weights | {"lm_head.weight": table + 1})  # transformers does not tie these
    same_as_loaded(folder, words)
    change_weights(
        folder, lambda weights: {name: value for name, value in weights.items() if "embed_tokens" not in name}
    )
    same_as_loaded(folder, words)


# --- folders with a part of the weights ---


def _shards(folder: Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A Llama whose head and embedding are in shards of their own."""
    folder = write_llama(tmp_path / "whole", shard="50KB")
    shards = _shards(folder)
    assert shards["lm_head.weight"] != shards["model.embed_tokens.weight"]
    return folder


def _only(folder: Path, to: Path, *names: str, index: bool = True) -> Path:
    """The settings and the shards of these tensors."""
    shards = _shards(folder)
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors", "" if index else "*.index.json"))
    for name in names:
        shutil.copy(folder / shards[name], to)
    return to


@pytest.mark.parametrize("index", [True, False])
def test_the_shard_with_the_head_is_enough(sharded: Path, words: Vocabulary, tmp_path: Path, index: bool) -> None:
    part = _only(sharded, tmp_path / "part", "lm_head.weight", index=index)
    head, _ = read_head(part, words, dtype="float32", device="cpu")
    assert torch.equal(head.weight, load_model(sharded).lm_head.weight)
    both = _only(sharded, tmp_path / "both", "lm_head.weight", "model.embed_tokens.weight", index=index)
    same_as_loaded(both, words, loaded=sharded)


def test_the_files_that_are_needed_are_known_from_the_index_alone(sharded: Path, tmp_path: Path) -> None:
    part, shards = _only(sharded, tmp_path / "none"), _shards(sharded)
    files = [[file.name for file in find_head(part, embedding=both).files] for both in (False, True)]
    assert files == [
        [shards["lm_head.weight"]],
        sorted({shards["lm_head.weight"], shards["model.embed_tokens.weight"]}),
    ]


def test_a_shard_that_is_not_there_is_named(sharded: Path, words: Vocabulary, tmp_path: Path) -> None:
    part, shards = _only(sharded, tmp_path / "part", "lm_head.weight"), _shards(sharded)
    missing = rf"{shards['model.embed_tokens.weight']}: is not there, and has model\.embed_tokens\.weight; fix: "
    refused(part, words, missing, embedding=True)
    refused(_only(sharded, tmp_path / "none", index=False), words, "none: has no weights; fix: ")
    other = _only(sharded, tmp_path / "other", "model.embed_tokens.weight", index=False)
    refused(other, words, r"other: has no tensor lm_head\.weight \(outside of its layers: model\.embed_tokens\.weight")
    (part / shards["lm_head.weight"]).write_text(LFS_POINTER)
    refused(part, words, "is a pointer of git-lfs")


@pytest.mark.parametrize("mapped", [True, False])
def test_pickles_are_read_too(folder: Path, words: Vocabulary, mapped: bool) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=mapped)
    same_as_loaded(folder, words)
    torch.save({"lm_head.weight": print}, folder / "pytorch_model.bin")
    refused(folder, words, r"pytorch_model\.bin: cannot be read")


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda w: w | {"lm_head.weight": w["lm_head.weight"][:, :16].clone()},
            r"is \[392, 16\], and by the configuration \[",
        ),
        (lambda w: {f"module.{name}": value for name, value in w.items()}, r"begin with module\."),
        (
            lambda w: {name: value for name, value in w.items() if "lm_head" not in name},
            r"has no tensor lm_head\.weight",
        ),
        (
            lambda w: w | {"embed_tokens.weight": w["model.embed_tokens.weight"].clone()},
            r"embed_tokens\.weight, model\.embed_tokens\.weight all stand for model\.embed_tokens\.weight; fix: ",
        ),
    ],
)
def test_weights_in_which_the_head_is_not_or_not_once_are_refused(
    folder: Path, words: Vocabulary, change: Callable[[Weights], Weights], match: str
) -> None:
    change_weights(folder, change)
    refused(folder, words, match, embedding=True)


def test_a_folder_without_a_configuration_or_with_another_kind_of_model(
    folder: Path, words: Vocabulary, tmp_path: Path
) -> None:
    refused(tmp_path / "nowhere", words, "no such model folder")
    change_json(folder / "config.json", model_type="bert", architectures=["BertModel"])
    with pytest.raises(InputError, match="fix: "):
        read_head(folder, words, dtype="float32", device="cpu")
    (folder / "config.json").unlink()
    refused(folder, words, r"no config\.json")


FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "fmt": "e4m3"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}


def test_the_plain_head_of_a_quantised_model_is_read_where_the_model_cannot_be_loaded(
    llama: Path, folder: Path, words: Vocabulary
) -> None:
    """A server with a GPU runs it; here is neither the package nor the GPU."""
    change_json(folder / "config.json", quantization_config=GPTQ)
    q_proj = "model.layers.0.self_attn.q_proj"
    change_weights(
        folder,
        lambda weights: (
            {name: value for name, value in weights.items() if q_proj not in name}
            | {f"{q_proj}.qweight": torch.zeros(4, 32, dtype=torch.int32)}
        ),
    )
    head, embedding = alone(folder, words)
    whole = load_model(llama)
    assert torch.equal(head.weight, whole.lm_head.weight)
    assert torch.equal(embedding, whole.model.embed_tokens.weight)


@pytest.mark.parametrize(
    ("quantisation", "change"),
    [
        (FP8, lambda w: w | {"lm_head.weight_scale_inv": torch.ones(4, 1)}),
        (FP8, lambda w: w | {"lm_head.weight": w["lm_head.weight"].to(torch.float8_e4m3fn)}),
        (
            GPTQ,
            lambda w: (
                {k: v for k, v in w.items() if "lm_head" not in k} | {"lm_head.qweight": torch.zeros(4, 392).int()}
            ),
        ),
    ],
)
def test_a_quantised_head_is_refused(
    folder: Path, words: Vocabulary, quantisation: dict[str, Any], change: Callable[[Weights], Weights]
) -> None:
    change_json(folder / "config.json", quantization_config=quantisation)
    change_weights(folder, change)
    refused(folder, words, r"its output head lm_head(\.weight)? is quantised; fix: quantise the model without it")


# --- adapters ---


def test_the_head_of_an_adapter_is_its_base_models(llama: Path, words: Vocabulary, tmp_path: Path) -> None:
    same_as_loaded(write_adapter(tmp_path / "adapter", llama), words)
    # The norm makes what enters the head, and is not of it.
    same_as_loaded(write_adapter(tmp_path / "norm", llama, modules_to_save=["norm"]), words)


@pytest.mark.parametrize(
    ("config", "module"),
    [
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
    ],
)
def test_an_adapter_that_changes_the_head_is_refused(
    llama: Path, words: Vocabulary, tmp_path: Path, config: dict[str, Any], module: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, **config)
    refused(adapter, words, rf"adapter_model\.safetensors: changes {module} \(.*fix: merge the adapter")


def test_an_adapter_that_changes_the_embedding_is_refused_where_that_is_needed(
    llama: Path, words: Vocabulary, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, modules_to_save=["embed_tokens"])
    assert torch.equal(
        read_head(adapter, words, dtype="float32", device="cpu")[0].weight, load_model(llama).lm_head.weight
    )
    refused(adapter, words, r"changes model\.embed_tokens", embedding=True)
    tied = write_llama(tmp_path / "tied", tie_word_embeddings=True)
    refused(
        write_adapter(tmp_path / "of tied", tied, modules_to_save=["embed_tokens"]), words, r"changes .*embed_tokens"
    )


# --- memory ---


def test_no_parameter_of_the_model_is_in_memory(
    llama: Path, words: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = MadeModels(monkeypatch)
    read_head(llama, words, dtype="float32", device="cpu", embedding=True)
    assert made.models
    assert made.in_memory() == set()
    load_model(llama)
    assert made.in_memory() == {32}

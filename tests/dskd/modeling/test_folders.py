"""Model folders whose files are not what they seem are refused before anything is loaded; and where the parts of a model lie."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.modeling.folders import parts_of, require_model_folder
from dskd.modeling.loading import load_tokenizer
from helpers.causal_models import KINDS, small_model
from helpers.llama_folders import LFS_POINTER, change_json, change_weights, in_hub_cache, write_adapter, write_llama


def refused(folder: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        require_model_folder(folder)
    assert "\n" not in str(caught.value)
    assert "fix: " in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"])
def test_a_pointer_of_git_lfs_is_called_by_its_name(folder: Path, name: str) -> None:
    require_model_folder(folder)
    (folder / name).write_text(LFS_POINTER)
    refused(folder, rf"{name}: is a pointer of git-lfs, not the file itself; fix: `git lfs pull` in {folder}")


def test_a_pointer_in_the_place_of_a_pickle_is_found_too_but_not_of_weights_that_nobody_loads(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_text(LFS_POINTER)
    require_model_folder(folder)
    (folder / "model.safetensors").unlink()
    refused(folder, r"pytorch_model\.bin: is a pointer of git-lfs")


def test_weights_that_were_cut_off_are_found_by_their_length(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    refused(
        folder,
        rf"was cut off: it has {len(whole) - 100:,} bytes, and its header names {len(whole):,}; fix: copy or download",
    )
    file.write_bytes(whole + b"more")
    refused(folder, "is too long")
    for beginning in (b"", whole[:5], whole[:200], b"\x08" + bytes(7) + b"not JSON"):
        file.write_bytes(beginning)
        refused(
            folder, r"model\.safetensors: has no header of a safetensors file, or a part of one; fix: copy or download"
        )


def test_shards_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "model", shard="60KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    require_model_folder(folder)
    shards[1].unlink()
    refused(
        folder,
        rf"1 of the {len(shards)} shards that it names are not there \(first: {shards[1].name}\); fix: copy or download",
    )
    (folder / "model.safetensors.index.json").write_text("{}")
    refused(folder, "has no weight_map of shards")


def test_a_configuration_with_another_vocabulary_names_both_numbers(folder: Path) -> None:
    change_json(folder / "config.json", vocab_size=464)
    refused(folder, r"config\.json: vocab_size is 464, but lm_head\.weight has 392 rows; fix: set vocab_size to 392")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (
            1,
            "num_hidden_layers is 1, but the weights have 2 layers; fix: set num_hidden_layers to 2, or take the first 1 by layers_of",
        ),
        (4, r"num_hidden_layers is 4, but the weights have nothing of layer 2 \(2 layers are missing\)"),
    ],
)
def test_a_configuration_with_another_number_of_layers(folder: Path, count: int, words: str) -> None:
    change_json(folder / "config.json", num_hidden_layers=count)
    refused(folder, words)


def test_a_missing_layer_in_the_middle(folder: Path) -> None:
    change_weights(folder, lambda weights: {name: value for name, value in weights.items() if ".layers.0." not in name})
    refused(folder, r"nothing of layer 0 \(1 layer is missing\)")


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_names_that_a_wrapper_has_prefixed(folder: Path, prefix: str) -> None:
    change_weights(folder, lambda weights: {prefix + name: value for name, value in weights.items()})
    refused(folder, rf"the names of all weights begin with {prefix} \(first: {prefix}lm_head\.weight\)")


def test_settings_that_are_no_json(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")
    refused(folder, r"generation_config\.json: not JSON")


def test_layers_for_the_tokens_after_the_next_are_no_mistake(folder: Path) -> None:
    change_json(folder / "config.json", num_hidden_layers=1, num_nextn_predict_layers=1)
    require_model_folder(folder)


@pytest.mark.parametrize("kind", [*KINDS[::6], "bart", "falcon_h1", "gemma3", "mamba", "moshi", "opt", "whisper"])
def test_what_transformers_writes_passes(kind: str, tmp_path: Path) -> None:
    small_model(kind).save_pretrained(tmp_path)
    require_model_folder(tmp_path)


def test_a_folder_of_links_into_the_hubs_cache_passes_and_a_link_that_points_nowhere_does_not(
    llama: Path, tmp_path: Path
) -> None:
    snapshot = in_hub_cache(llama, tmp_path)
    require_model_folder(snapshot)
    (snapshot / "config.json").resolve().unlink()
    refused(snapshot, r"no config\.json in the model folder")


# --- adapters ---


@pytest.mark.parametrize("own", [True, False])
def test_what_an_adapter_lacks_is_its_base_models(llama: Path, tmp_path: Path, own: bool) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, tokenizer=own)
    parts = parts_of(adapter)
    assert parts.is_adapter
    assert (parts.model, parts.config) == (llama, llama / "config.json")
    assert parts.tokenizer == (adapter if own else llama)
    assert parts.generation_config == llama / "generation_config.json"
    assert load_tokenizer(adapter).get_vocab() == load_tokenizer(llama).get_vocab()
    require_model_folder(adapter)
    (adapter / "generation_config.json").write_text('{"eos_token_id": 3}')
    assert parts_of(adapter).generation_config == adapter / "generation_config.json"


def test_a_model_of_its_own_is_in_one_folder(llama: Path) -> None:
    parts = parts_of(llama)
    assert not parts.is_adapter
    assert parts.model == parts.tokenizer == llama


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda base, own: (own / "adapter_model.safetensors").write_text(LFS_POINTER),
            "adapter_model.safetensors: is a pointer",
        ),
        (
            lambda base, own: (own / "adapter_model.safetensors").write_bytes(b"half"),
            "adapter_model.safetensors: has no header",
        ),
        (
            lambda base, own: (base / "model.safetensors").write_text(LFS_POINTER),
            "base/model.safetensors: is a pointer",
        ),
        (lambda base, own: (base / "tokenizer.json").write_text(LFS_POINTER), "base/tokenizer.json: is a pointer"),
        (lambda base, own: change_json(base / "config.json", vocab_size=9), "base/config.json: vocab_size is 9"),
    ],
)
def test_damage_to_an_adapter_or_its_base_is_found(
    llama: Path, tmp_path: Path, damage: Callable[[Path, Path], Any], words: str
) -> None:
    base = Path(shutil.copytree(llama, tmp_path / "base"))
    adapter = write_adapter(tmp_path / "adapter", base, named="../base")
    require_model_folder(adapter)
    damage(base, adapter)
    refused(adapter, words)


def test_a_tokenizer_beside_an_adapter_is_read_without_its_base_model(llama: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", llama, tokenizer=True, named="/nowhere/base")
    assert len(load_tokenizer(adapter)) == 392
    (adapter / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="the base model '/nowhere/base' is not here"):
        load_tokenizer(adapter)

"""The weights of a model folder as their files say it, without torch: whether they are whole, and fit the configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dskd.errors import InputError
from dskd.io import read_object

ADAPTER_CONFIG = "adapter_config.json"
_LFS = b"version https://git-lfs.github.com/spec/"
INDEX = ".index.json"
# As transformers looks for them: the first that is there is the one that it loads.
OF_MODEL = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
OF_ADAPTER = ("adapter_model.safetensors", "adapter_model.bin")
_COPY_AGAIN = "fix: copy or download it again"
_LENGTH_BYTES = 8  # before the header of a safetensors file, that of the header

# What stands before the names of a language model's weights; those of image and sound parts have other names there.
_LANGUAGE = r"^(?:(?:model|language_model|transformer|backbone|gpt_neox|decoder)\.)*"
# The embedding and the head, which have a row a token.
_ROWS = re.compile(rf"{_LANGUAGE}(?:embed_tokens|wte|word_embeddings|embed_in|embeddings|lm_head|embed_out)\.weight$")
_LAYER = re.compile(rf"{_LANGUAGE}(?:layers|h|blocks)\.(\d+)\.")
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# Layers for the tokens after the next, which some models are published with and transformers leaves out.
_EXTRA_LAYERS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_layers")
# What wrappers put before every name of a state dict.
_WRAPPERS = {"_orig_mod.": "torch.compile", "module.": "DistributedDataParallel", "_fsdp_wrapped_module.": "FSDP"}


class StoredTensor(NamedTuple):
    """A tensor as the header of a safetensors file has it."""

    dtype: str
    shape: tuple[int, ...]


def require_content(path: Path) -> None:
    """InputError where a file is a pointer of git-lfs, which stands for a file that was not downloaded."""
    try:
        with path.open("rb") as stream:
            begins = stream.read(len(_LFS))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); fix: put a readable file there") from None
    if begins == _LFS:
        raise InputError(f"{path}: is a pointer of git-lfs, not the file itself; fix: `git lfs pull` in {path.parent}")


def check_weights(folder: Path, config: Mapping[str, Any] | None) -> None:
    """InputError for weights in a folder that are not whole, or do not fit a configuration of its language part.

    Args:
        folder: A model's folder, or an adapter's.
        config: What its configuration says; None for an adapter, whose weights it says nothing about.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in weight_files(folder):
        require_content(file)
        if file.suffix == ".safetensors":
            tensors |= read_header(file)
    if config is None or not tensors:
        return  # what else a pickle holds shows when it is loaded
    check_names(folder, tensors)
    _check_rows(folder, tensors, config)
    _check_layers(folder, tensors, config)


def weight_files(folder: Path) -> list[Path]:
    """The files that the weights in a folder are loaded from, an adapter's own where it holds one.

    InputError for shards that an index names and that are not there.
    """
    names = OF_ADAPTER if (folder / ADAPTER_CONFIG).is_file() else OF_MODEL
    first = next((folder / name for name in names if (folder / name).is_file()), None)
    if first is None or not first.name.endswith(INDEX):
        return [] if first is None else [first]
    shards = weight_map(first)
    files = [folder / name for name in sorted(set(shards.values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise InputError(
            f"{first}: {len(missing)} of the {len(files)} shards that it names are not there (first: {missing[0]}); "
            "fix: copy or download them"
        )
    return files


def weight_map(index: Path) -> dict[str, str]:
    """The name of the shard of each tensor, as an index says. InputError for a file that is no index."""
    require_content(index)
    shards = read_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(f"{index}: has no weight_map of shards; {_COPY_AGAIN}")
    return shards


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name. InputError where the file is not as long as its header says."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        text = stream.read(length) if length <= size - _LENGTH_BYTES else b""
    try:
        header = json.loads(text)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = {name: StoredTensor(entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()}
        data = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (ValueError, AttributeError, LookupError, TypeError):
        raise InputError(f"{path}: has no header of a safetensors file, or a part of one; {_COPY_AGAIN}") from None
    whole = _LENGTH_BYTES + length + data
    if size != whole:
        state = "was cut off" if size < whole else "is too long"
        raise InputError(f"{path}: {state}: it has {size:,} bytes, and its header names {whole:,}; {_COPY_AGAIN}")
    return found


def check_names(folder: Path, tensors: Collection[str]) -> None:
    """InputError where a wrapper of the model has put its own prefix before all names."""
    for prefix, wrapper in _WRAPPERS.items():
        if all(name.startswith(prefix) for name in tensors):
            raise InputError(
                f"{folder}: the names of all weights begin with {prefix} (first: {min(tensors)}), as {wrapper} writes them; "
                "fix: save the model itself, without its wrapper, by save_pretrained"
            )


def _check_rows(folder: Path, tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> None:
    rows = config.get("vocab_size")
    if not isinstance(rows, int):
        return
    matrices = {name: tensor for name, tensor in sorted(tensors.items()) if _ROWS.match(name)}
    # Quantised ones are packed into other shapes.
    found = {
        name: tensor.shape[0]
        for name, tensor in matrices.items()
        if len(tensor.shape) == 2 and tensor.dtype in {"F64", "F32", "F16", "BF16"}
    }
    if found and rows not in found.values():  # an embedding alone may have a row more, as Moshi's has
        name, number = next(iter(found.items()))
        raise InputError(
            f"{folder / 'config.json'}: vocab_size is {rows}, but {name} has {number} rows; "
            f"fix: set vocab_size to {number}, or use the weights that belong to it"
        )


def _check_layers(folder: Path, tensors: Mapping[str, StoredTensor], config: Mapping[str, Any]) -> None:
    names = ("decoder_layers",) if "decoder_layers" in config else _LAYER_COUNTS
    counts = {key: config[key] for key in names if isinstance(config.get(key), int)}
    numbers = {int(match[1]) for name in tensors if (match := _LAYER.match(name))}
    if len(set(counts.values())) != 1 or not numbers:
        return  # nothing to compare; or two counts, of which this does not know what each means
    key, count = next(iter(counts.items()))
    extra = sum(config[name] for name in _EXTRA_LAYERS if isinstance(config.get(name), int))
    if max(numbers) >= count + extra:
        raise InputError(
            f"{folder / 'config.json'}: {key} is {count}, but the weights have {max(numbers) + 1} layers; "
            f"fix: set {key} to {max(numbers) + 1}, or take the first {count} by layers_of in a matrix"
        )
    missing = sorted(set(range(count)) - numbers)
    if missing:
        raise InputError(
            f"{folder / 'config.json'}: {key} is {count}, but the weights have nothing of layer {missing[0]} "
            f"({_counted(len(missing), 'layer')} missing); fix: use the weights that belong to it"
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun} is" if number == 1 else f"{number} {noun}s are"

"""Single tensors of a model folder's weights: which file has which, and one read without the others."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dskd.errors import InputError, is_out_of_memory
from dskd.modeling.weight_files import INDEX, OF_ADAPTER, OF_MODEL, read_header, require_content, weight_map


def tensor_files(folder: Path) -> dict[str, Path]:
    """The file of each tensor of a folder's weights by name.

    With an index these are the files that it names, which need not be there; without one, all shards that are there.
    InputError for a folder without weights, and files that cannot be read.
    """
    first = next((folder / name for name in OF_MODEL if (folder / name).is_file()), None)
    if first is not None and first.name.endswith(INDEX):
        return {name: folder / file for name, file in weight_map(first).items()}
    files = _shards(folder) if first is None else [first]
    if not files:
        raise InputError(f"{folder}: has no weights; fix: put the file with the output head there")
    return {name: file for file in files for name in names_in(file)}


def names_in(file: Path) -> list[str]:
    """The names of the tensors in a file of weights. InputError where it cannot be read."""
    require_content(file)
    return list(read_header(file) if file.suffix == ".safetensors" else _pickled(file))


def read_tensor(file: Path, name: str) -> Tensor:
    """A tensor of a file of weights, in memory of its own on the CPU. InputError where the file is not there, or was cut off."""
    if not file.is_file():
        raise InputError(f"{file}: is not there, and has {name}; fix: copy or download it")
    if name not in names_in(file):
        raise InputError(f"{file}: has no {name}, which the index says it has; fix: copy or download both again")
    if file.suffix != ".safetensors":
        return _pickled(file)[name].clone()
    try:
        # Not mapped: a map's pages count as memory of the process, and are gone where the file is written anew.
        with safe_open(file, framework="pt", backend="pread") as opened:
            return opened.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: cannot be read ({error}); fix: copy or download it again") from error


def _shards(folder: Path) -> list[Path]:
    """Files of weights in a folder without an index."""
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if found := sorted(file for file in folder.glob(pattern) if file.name not in OF_ADAPTER):
            return found
    return []


def _pickled(file: Path) -> dict[str, Tensor]:
    """A pickle's tensors; mapped, where torch wrote it in the last years."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    except (UnpicklingError, EOFError, LookupError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file}: cannot be read ({reason}); fix: copy or download it again") from error

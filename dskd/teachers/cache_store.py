"""The folder of a teacher cache: what is in it, what counts as whole, and how its rows are read.

    signal.json               the request, the engine that the cache was begun with and how it compares with transformers, sha256 of
                              the next two files, the ranges of rows of the shards; written after those two
    rows.safetensors          digests [rows, 32] of the rows, offsets [rows + 1] of their labelled tokens; known from the data alone
    head.safetensors          weight and bias of the teacher's head, its input embedding where that is not the weight; only with
                              hidden states
    shards/00000.safetensors  tensors [tokens of the shard, …], rows one after the other
    shards/00000.json         sha256 and counts; written after the shard, so that it marks one that is whole

Every file is written beside its place, synchronised to the disk and renamed. Shards are read through a memory map.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dskd.errors import InputError, TrainingFailed
from dskd.io import sync_folder

SIGNAL, ROWS, HEAD, SHARDS = "signal.json", "rows.safetensors", "head.safetensors", "shards"
UNFINISHED = ".unfinished"


class TeacherCacheDamaged(InputError):
    """A file of a teacher cache is missing, cut, or not what was written; building the cache again repairs it."""


class RowIndex:
    """Which rows a cache has. digests: bytes [rows]; offsets: int64 [rows + 1], of their labelled tokens."""

    def __init__(self, digests: list[bytes], offsets: np.ndarray) -> None:
        self.digests = digests
        self.offsets = offsets

    @property
    def content(self) -> str:
        return hashlib.sha256(b"".join(self.digests) + self.offsets.tobytes()).hexdigest()

    @cached_property
    def row_of(self) -> dict[bytes, int]:
        return {digest: row for row, digest in enumerate(self.digests)}

    def tensors(self) -> dict[str, Tensor]:
        digests = np.frombuffer(b"".join(self.digests), dtype=np.uint8).reshape(-1, 32).copy()
        return {"digests": torch.from_numpy(digests), "offsets": torch.from_numpy(self.offsets)}


def row_digest(ids: np.ndarray, prompt_length: int) -> bytes:
    """What a teacher is given for a row, and at which of its tokens it is asked. 32 bytes."""
    return hashlib.sha256(np.concatenate(([prompt_length], ids)).astype("<i8").tobytes()).digest()


class CacheStore:
    """Reading, checking and writing the files of one cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        return (self.folder / SIGNAL).is_file()

    @cached_property
    def description(self) -> dict[str, Any]:
        """signal.json. Raises InputError where there is none, TeacherCacheDamaged where it cannot be read."""
        file = self.folder / SIGNAL
        if not self.exists():
            raise InputError(f"{self.folder}: holds no teacher cache; fix: make it with dskd.build_teacher_cache")
        try:
            description = json.loads(file.read_text(encoding="utf-8"))
            written = description.pop("sha256")
        except (ValueError, KeyError, AttributeError) as error:
            raise TeacherCacheDamaged(
                f"{file}: cannot be read; fix: remove {self.folder} and build the cache again"
            ) from error
        if written != _sha256(json.dumps(description).encode()):
            raise TeacherCacheDamaged(f"{file}: was changed; fix: remove {self.folder} and build the cache again")
        return description

    @property
    def request(self) -> dict[str, Any]:
        return self.description["request"]

    @property
    def engine(self) -> str:
        """What the cache was begun with; before this was recorded, that was transformers."""
        return self.description.get("engine", "transformers")

    @property
    def comparison(self) -> dict[str, Any] | None:
        """How the engine compares with transformers, None where it is that."""
        return self.description.get("comparison")

    @property
    def ranges(self) -> list[tuple[int, int]]:
        return [(first, last) for first, last in self.description["shards"]]

    @cached_property
    def index(self) -> RowIndex:
        tensors = self.file(ROWS)
        return RowIndex([row.tobytes() for row in tensors["digests"].numpy()], tensors["offsets"].numpy())

    def file(self, name: str, *keys: str) -> dict[str, Tensor]:
        """Those of these tensors that rows.safetensors or head.safetensors has, by default all, in memory. Raises TeacherCacheDamaged."""
        file = self.folder / name
        if not self._is_whole_file(name):
            raise TeacherCacheDamaged(f"{file}: is missing or damaged; fix: build the cache again")
        try:
            # Not mapped: while it is copied, what is mapped would be held twice.
            with safe_open(file, framework="pt", backend="pread") as opened:
                return {key: opened.get_tensor(key) for key in opened.keys() if not keys or key in keys}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise _unreadable(file, error) from error

    def damaged_files(self) -> list[str]:
        return [name for name in self.description["files"] if not self._is_whole_file(name)]

    def _is_whole_file(self, name: str) -> bool:
        file = self.folder / name
        return file.is_file() and _sha256_of(file) == self.description["files"].get(name)

    def damaged_shards(self) -> list[int]:
        """Numbers of the shards that are missing, half-written or not what was written. Reads every byte."""
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # sha256 lets other threads run
            whole = list(pool.map(self._is_whole_shard, range(len(self.ranges))))
        return [number for number, good in enumerate(whole) if not good]

    def shard_file(self, number: int) -> Path:
        return self.folder / SHARDS / f"{number:05d}.safetensors"

    def _is_whole_shard(self, number: int) -> bool:
        file = self.shard_file(number)
        try:
            mark = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            return file.stat().st_size == mark["bytes"] and _sha256_of(file) == mark["sha256"]
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def begin(
        self,
        request: dict[str, Any],
        files: Mapping[str, dict[str, Tensor]],
        ranges: Iterable[Any],
        *,
        engine: str,
        comparison: dict[str, Any] | None,
    ) -> None:
        """Write what is known before the first shard, signal.json last. Raises InputError for a folder with other things."""
        if self.folder.is_dir():
            names = {path.name.removesuffix(UNFINISHED) for path in self.folder.iterdir()}
            if foreign := sorted(names - {SIGNAL, ROWS, HEAD, SHARDS}):
                raise InputError(f"{self.folder}: holds {foreign[0]}, not a teacher cache; fix: give another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        description = {
            "request": request,
            "engine": engine,
            "comparison": comparison,
            "files": {name: self.write_tensors(self.folder / name, tensors) for name, tensors in files.items()},
            "shards": [list(one) for one in ranges],
        }
        description["sha256"] = _sha256(json.dumps(description).encode())
        write_whole(self.folder / SIGNAL, (json.dumps(description, indent=2) + "\n").encode())
        self.__dict__.pop("description", None)

    def write_tensors(self, file: Path, tensors: Mapping[str, Tensor]) -> str:
        """Write tensors so that the file is whole or not there, and return its sha256."""
        content = save({name: value.contiguous() for name, value in tensors.items()})
        write_whole(file, content)
        return _sha256(content)

    def write_shard(self, number: int, tensors: Mapping[str, Tensor]) -> None:
        file = self.shard_file(number)
        file.parent.mkdir(exist_ok=True)
        digest = self.write_tensors(file, tensors)
        first, last = self.ranges[number]
        counts = {"rows": [first, last], "tokens": len(next(iter(tensors.values()))), "bytes": file.stat().st_size}
        write_whole(file.with_suffix(".json"), (json.dumps({"sha256": digest, **counts}) + "\n").encode())

    def clean(self) -> None:
        """Remove what a killed build left half-written."""
        for file in self.folder.rglob(f"*{UNFINISHED}"):
            file.unlink()

    @property
    def bytes(self) -> int:
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


class ShardReader:
    """Rows of a teacher cache, from shards that stay mapped: nothing is in memory that the system cannot drop."""

    def __init__(self, store: CacheStore) -> None:
        self._store = store
        self._offsets = store.index.offsets.tolist()
        self._starts = np.array([first for first, _ in store.ranges], dtype=np.int64)
        self._mapped: dict[int, dict[str, Tensor]] = {}

    def rows(self, rows: list[int], *, pin: bool) -> dict[str, Tensor]:
        """The tensors of these rows, one after the other, in the CPU's memory; `pin` for a copy to a GPU that nothing waits for."""
        parts: dict[str, list[Tensor]] = {}
        shards = (np.searchsorted(self._starts, rows, side="right") - 1).tolist()
        for row, shard in zip(rows, shards, strict=True):
            if shard not in self._mapped:
                self._mapped[shard] = read_mapped(self._store.shard_file(shard))
            before = self._offsets[self._starts[shard]]
            place = slice(self._offsets[row] - before, self._offsets[row + 1] - before)
            for name, value in self._mapped[shard].items():
                parts.setdefault(name, []).append(value[place])
        length = {name: (sum(map(len, values)), *values[0].shape[1:]) for name, values in parts.items()}
        return {
            name: torch.cat(values, out=torch.empty(length[name], dtype=values[0].dtype, pin_memory=pin))
            for name, values in parts.items()
        }


def read_mapped(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file as views of its memory map. Raises TeacherCacheDamaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> TeacherCacheDamaged:
    return TeacherCacheDamaged(f"{file}: cannot be read ({error}); fix: build the cache again")


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that is whole or not there at all, whatever happens. Raises TrainingFailed where the disk is full."""
    unfinished = file.with_name(file.name + UNFINISHED)
    try:
        with unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(file)
        sync_folder(file.parent)  # the rename too must reach the disk before what comes after it
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        unfinished.unlink(missing_ok=True)
        raise TrainingFailed(
            f"{file}: the disk is full; fix: free space and build again, what is written so far stays"
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

"""Identities: what can change an output is in, what cannot is out.

The identity of an output is a tree of plain values (`parts`) and the sha256 of its canonical JSON. The parts of an input stand
inside the parts of what is made from it, so a difference between two identities names the one setting that changed, however far
upstream. In: options with their defaults filled in, the contents of data, tokenizer and model files, seeds, task versions, the
version of our code for each kind of job. Out: paths, names, executors, numbers of processes, batch sizes of engines.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from functools import cached_property
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dskd import hub
from dskd.errors import InputError
from dskd.modeling.folders import check_content, check_tokenizer_files, parts_of, tokenizer_files, tokenizer_folder
from dskd.modeling.weight_files import require_content
from harness.runs.hash_cache import FileKey, HashCache
from harness.runs.hashing import hash_of

HASH_VERSION = 1
# What stands for the files of a base model from the hub among the hashes of an adapter.
BASE, BASE_COMMIT = "base/hub", "base/commit"

_ATTEMPTS = 3  # at a file that changes while it is read

_MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*")


class Fingerprint:
    """What an output is made of as canonical JSON, and the sha256 of that text.

    Fingerprints nest: the text of an input is a part of the text of everything that is made from it, and is written once.
    """

    __slots__ = ("__dict__", "text")

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Fingerprint:
        """The fingerprint of these parts, which may hold fingerprints; ValueError where they hold what JSON cannot (NaN included)."""
        return cls(canonical_json(parts))

    @cached_property
    def hash(self) -> str:
        """The sha256 in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def short(self) -> str:
        """The first 16 digits, as folders are called."""
        return self.hash[:16]

    @property
    def parts(self) -> dict[str, Any]:
        """The tree of plain values."""
        return json.loads(self.text)

    @property
    def identity(self) -> Identity:
        """The same as manifests and records keep it."""
        return Identity(hash=self.hash, parts=self.parts)


class Identity(BaseModel):
    """The identity of an output as it is stored: `hash` is the sha256 of the canonical JSON of `parts`."""

    hash: str
    hash_version: int = HASH_VERSION
    parts: dict[str, Any]

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Identity:
        """The identity made of these parts; ValueError where they hold what JSON cannot (NaN included)."""
        return Fingerprint.of(parts).identity

    @property
    def short(self) -> str:
        """The first 16 digits, as folders are called."""
        return self.hash[:16]


def canonical_json(value: Any) -> str:
    """One text for equal values: keys sorted, no spaces, 1.0 written as 1, NaN refused."""
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Fingerprint):
        return value.text
    if isinstance(value, Mapping):
        items = sorted((str(key), item) for key, item in value.items())
        return "{" + ",".join([f"{encode_basestring(key)}:{canonical_json(item)}" for key, item in items]) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(canonical_json, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # `learning_rate: 1` and `learning_rate: 1.0` are the same setting
    return str(value) if type(value) is int else json.dumps(value, allow_nan=False)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What changed between two trees of parts, as `teacher.training.0.steps: 100 -> 200`."""
    return list(_differences(old, new, ()))


_ABSENT = object()


def _differences(old: Any, new: Any, where: tuple[str, ...]) -> Iterator[str]:
    if isinstance(old, list) and isinstance(new, list):
        old, new = ({str(index): item for index, item in enumerate(side)} for side in (old, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), (*where, str(key)))
    elif old != new:
        yield f"{'.'.join(where)}: {_shown(old)} -> {_shown(new)}"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


class FileHashes:
    """sha256 of files. Each is read once as long as it stays the same; large ones are remembered between runs (`HashCache`)."""

    def __init__(self, *, verify: bool = False, cache: HashCache | None = None) -> None:
        """verify: read every file, and compare it with what is remembered. cache: the user's unless given."""
        self._known: dict[FileKey, str] = {}
        self._verify = verify
        self._cache = cache or HashCache()

    def file(self, path: Path) -> str:
        """sha256 of a file's bytes, in hexadecimal.

        Raises:
            InputError: where it cannot be read, where it changes all the time, and where it is not what is remembered of it although
                its size and time did not change.
        """
        try:
            place = Path(os.path.realpath(path))
            key = FileKey.of(place, place.stat())
            if key not in self._known:
                remembered = None if self._verify or not os.access(place, os.R_OK) else self._cache.get(key)
                key, self._known[key] = (key, remembered) if remembered else self._read(place)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); fix: put a readable file there") from None
        return self._known[key]

    def _read(self, place: Path) -> tuple[FileKey, str]:
        """Hash a file as it is from the first byte to the last: one that is written or replaced meanwhile is read again."""
        for _ in range(_ATTEMPTS):
            moment = time.time()
            with place.open("rb", buffering=0) as stream:
                key = FileKey.of(place, os.fstat(stream.fileno()))
                digest = hash_of(stream, key.size)
                unchanged = key == FileKey.of(place, os.fstat(stream.fileno())) == FileKey.of(place, place.stat())
            if unchanged:
                if self._verify:
                    self._cache.verify(key, digest)
                self._cache.put(key, digest, moment)
                return key, digest
        raise InputError(f"{place}: changes while it is read; fix: wait until it is written")

    def tokenizer_folder(self, folder: Path) -> dict[str, str]:
        """sha256 of each file that makes a tokenizer, an adapter's base model's where it has none of its own.

        InputError where the folder holds none, or pointers of git-lfs.
        """
        place = require_tokenizer(folder)
        return {path.relative_to(place).as_posix(): self.file(path) for path in tokenizer_files(place)}

    def model_folder(self, folder: Path) -> dict[str, str]:
        """sha256 of each file that makes a model (configuration and weights), its base model's too where it is an adapter.

        InputError where there are no weights, or where they are not all there (`dskd.modeling.folders.check_content`).
        """
        _require_folder(folder)
        base, on_hub = parts_of(folder).model, hub.base_on_hub(folder)
        if on_hub is None:  # the weights of a base on the hub come later
            check_content(folder)
        if base != folder:
            adapter = self._matching(folder, ("adapter_config.json", "adapter_model*"), "adapter")
            if on_hub is not None:
                return adapter | {BASE: on_hub.repo, BASE_COMMIT: base.name}
            return adapter | {f"base/{name}": digest for name, digest in self.model_folder(base).items()}
        hashes = self._matching(folder, _MODEL_FILES, "model (config.json and *.safetensors)")
        weights = any(name.endswith((".safetensors", ".bin")) for name in hashes)
        if "config.json" not in hashes or not weights:
            lacks = "weights (*.safetensors)" if "config.json" in hashes else "config.json"
            raise InputError(f"{folder}: has no {lacks}; fix: give a folder that `save_pretrained` wrote")
        return hashes

    def head_folder(self, folder: Path) -> dict[str, str]:
        """sha256 of each file of a model's folder that is there: of one whose head alone is read, shards may be missing.

        InputError where there is no configuration, and for pointers of git-lfs.
        """
        _require_folder(folder)
        hashes = self._matching(folder, _MODEL_FILES, "model (config.json and *.safetensors)")
        for name in hashes:
            require_content(folder / name)
        return hashes

    def _matching(self, folder: Path, patterns: tuple[str, ...], what: str) -> dict[str, str]:
        paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
        if not paths:
            raise _holds_no(folder, what)
        return {path.relative_to(folder).as_posix(): self.file(path) for path in paths}


def require_tokenizer(folder: Path) -> Path:
    """The folder of a model's tokenizer; InputError where there is none, or pointers of git-lfs. Nothing is hashed."""
    _require_folder(folder)
    place = tokenizer_folder(folder)
    check_tokenizer_files(place)
    if not tokenizer_files(place):
        raise _holds_no(place, "tokenizer files (tokenizer.json or vocab.json)")
    return place


def _holds_no(folder: Path, what: str) -> InputError:
    return InputError(f"{folder}: holds no {what}; fix: give a folder that `save_pretrained` wrote")


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"no folder '{folder}'; fix: correct the path")

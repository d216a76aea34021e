"""Finds the rows of a data set: in a local folder, then in an installed package, and on the hub only when asked.

Whatever the source, the content is checked against the hash that the task was made with, so that a score always belongs
to one data set.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True)
class HubRows:
    """The same rows on the Hugging Face hub, in whatever file format it keeps them.

    `rows_sha256` is `rows_digest` of the rows, restricted to `fields`.
    """

    repository: str
    split: str
    fields: tuple[str, ...]
    rows_sha256: str
    configuration: str | None = None
    data_file: str | None = None


@dataclass(frozen=True)
class DataFile:
    """A JSON-lines file (.jsonl or .jsonl.gz), at `path` under the folder that HARNESS_DATA names.

    `sha256` is that of the file's bytes. `package` is an importable package and the file's path inside it.
    """

    path: str
    sha256: str
    package: tuple[str, str] | None = None
    hub: HubRows | None = None

    def rows(self) -> list[Row]:
        """Return the rows in their order. InputError where there is no source, or its content is another."""
        if (path := self._local() or self._packaged()) is not None:
            return self._read(path)
        if self.hub is not None and os.environ.get("HARNESS_HUB") == "1":
            return _rows_from_hub(self.hub)
        folder = os.environ.get("HARNESS_DATA")
        looked = (
            f"{Path(folder) / self.path}: no such file" if folder else f"data file {self.path}: HARNESS_DATA is not set"
        )
        hub = "" if self.hub is None else f", or set HARNESS_HUB=1 to fetch it from {self.hub.repository} on the hub"
        raise InputError(f"{looked}; set HARNESS_DATA to the folder that holds {self.path}{hub}")

    def is_here(self) -> bool:
        """Whether the rows can be read without asking the hub."""
        return self._local() is not None or self._packaged() is not None

    def _local(self) -> Path | None:
        folder = os.environ.get("HARNESS_DATA")
        if not folder:
            return None
        if not Path(folder).is_dir():
            raise InputError(f"HARNESS_DATA: {folder} is not a folder; set it to the folder that holds {self.path}")
        path = Path(folder) / self.path
        return path if path.is_file() else None

    def _packaged(self) -> Path | None:
        if self.package is None:
            return None
        package, inside = self.package
        try:
            path = Path(str(importlib.resources.files(package))) / inside
        except ModuleNotFoundError:
            return None
        return path if path.is_file() else None

    def _read(self, path: Path) -> list[Row]:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest != self.sha256:
            raise InputError(f"{path}: sha256 is {digest}, expected {self.sha256}; put the original file there")
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return [json.loads(line) for line in content.split(b"\n") if line.strip()]


def rows_digest(rows: Sequence[Row], fields: Sequence[str]) -> str:
    """Return the sha256 of the rows' fields, whatever file they came from."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row[field] for field in fields], ensure_ascii=False).encode("utf-8") + b"\n")
    return digest.hexdigest()


def _rows_from_hub(source: HubRows) -> list[Row]:
    import datasets

    try:
        loaded = datasets.load_dataset(
            source.repository, source.configuration, data_files=source.data_file, split=source.split
        )
    except (OSError, ValueError) as error:  # offline, no such repository, no such file
        raise InputError(
            f"hub data set {source.repository}: {error}; check the connection or set HARNESS_DATA"
        ) from error
    rows = [{field: row[field] for field in source.fields} for row in loaded]
    digest = rows_digest(rows, source.fields)
    if digest != source.rows_sha256:
        raise InputError(
            f"hub data set {source.repository}: its rows have the sha256 {digest}, expected {source.rows_sha256}; "
            "set HARNESS_DATA to a folder with the original file"
        )
    return rows

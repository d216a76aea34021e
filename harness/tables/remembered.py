"""The printed table of a run, kept until anything changes that it could depend on.

Making a table reads all samples of a run and resamples them thousands of times. What was printed last lies in
`DIR/.harness/leaderboard.json` with a key: the sha256 of every byte of every record and of its samples, of this program's code, of
the versions of the libraries that compute, and of what the table is about. Another key, or a damaged file, and it is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import dskd
import harness
from harness.runs.store import SAMPLES, result_files, write_json_atomic

_PLACE = Path(".harness", "leaderboard.json")
_LIBRARIES = ("numpy", "scipy", "statsmodels", "pandas", "pydantic")


def remembered(root: Path, about: str, make: Callable[[], str]) -> str:
    """A text that is made of the records of a run.

    Args:
        root: The folder of the run.
        about: What else the text depends on, as the pairs that a matrix has.
        make: Makes the text; called where it is not known already.

    Returns:
        The text. Where it cannot be kept (a read-only folder), it is made each time.
    """
    path, key = root / _PLACE, _key(root, about)
    known = _read(path, key) if key is not None else None
    if known is not None:
        return known
    text = make()
    if key is not None and key == _key(root, about):  # no record changed meanwhile
        with suppress(OSError):
            write_json_atomic(path, {"key": key, "sha256": _sha256(text), "text": text})
    return text


def _read(path: Path, key: str) -> str | None:
    try:
        content = json.loads(path.read_bytes())
        text = content["text"] if content["key"] == key and _sha256(content["text"]) == content["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return text


def _key(root: Path, about: str) -> str | None:
    """The sha256 of all that a table may depend on; None where something of it cannot be read."""
    key = hashlib.sha256()
    try:
        for name, content in (("about", about.encode()), ("code", _code()), *_records(root)):
            key.update(f"{name}\0{len(content)}\0".encode(errors="surrogateescape"))
            key.update(content)
    except OSError:
        return None
    return key.hexdigest()


def _records(root: Path) -> Iterator[tuple[str, bytes]]:
    for record in result_files(root):
        samples = record.with_name(SAMPLES)
        yield str(record.relative_to(root)), record.read_bytes()
        if samples.is_file():
            with samples.open("rb") as stream:
                yield f"{samples.relative_to(root)}", hashlib.file_digest(stream, "sha256").digest()


def _code() -> bytes:
    """What stands for the code: every source file of ours, and the versions of the interpreter and of libraries."""
    code = hashlib.sha256(sys.version.encode())
    for package in (dskd, harness):
        for top, folders, names in os.walk(package.__path__[0]):
            folders.sort()
            for name in sorted(name for name in names if name.endswith(".py")):
                path = Path(top, name)
                code.update(f"{path.relative_to(package.__path__[0])}\0".encode() + path.read_bytes())
    for library in _LIBRARIES:
        code.update(f"{library} {_version(library)}\n".encode())
    return code.digest()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "absent"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

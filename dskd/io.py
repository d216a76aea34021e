"""Reads JSON objects with errors that name the place, and writes files atomically."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dskd.errors import InputError

# Asked before each file gets its name, and each folder that a whole result moves to: a process that must not write any more, because
# another one does by now, ends here.
WRITE_CHECKS: list[Callable[[], None]] = []

HALF_A_PAIR = "half of a surrogate pair (\\ud800 to \\udfff) is no text; fix: write the whole character"


def has_half_a_pair(row: Any) -> bool:
    """Whether a string in a JSON value holds half of a surrogate pair, which no encoding can write."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def read_objects(path: Path, *, half_pairs: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every line that is not blank.

    Raises InputError for a file that cannot be read or has no objects, text that is not UTF-8, a line that is no JSON object, and
    half of a surrogate pair in a string, which no encoding can write, unless `half_pairs` lets it through.
    """
    with open_lines(path) as lines:
        yield from objects_in(lines, path, half_pairs=half_pairs)


def objects_in(
    lines: Iterable[bytes], path: Path, *, half_pairs: bool = False, first: int = 1
) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `read_objects`, of lines that were read from `path` in some way; `first` is the number of the first."""
    empty = True
    for number, line in enumerate(lines, first):
        if not line.strip():
            continue
        row = _parse(line, f"{path}:{number}", "one JSON object on each line")
        if not half_pairs and rb"\ud" in line.lower() and has_half_a_pair(row):
            raise InputError(f"{path}:{number}: {HALF_A_PAIR}")
        empty = False
        yield number, row
    if empty:
        raise InputError(f"{path}: the file is empty; fix: one JSON object on each line")


@contextmanager
def open_lines(path: Path) -> Iterator[BinaryIO]:
    """A file of lines, open for reading; InputError where it cannot be read."""
    with _readable(path):
        if not path.is_file():
            raise InputError(f"{path}: no such file; fix: give the path of a JSONL file")
        with path.open("rb") as lines:
            yield lines


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a whole file holds; InputError where it cannot be read or holds none."""
    with _readable(path):
        content = path.read_bytes()
    return _parse(content, str(path), "save the file again")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); fix: give a file that can") from None


def _parse(text: bytes, where: str, fix: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at column {error.colno}); fix: {fix}") from None
    except UnicodeDecodeError:
        raise InputError(f"{where}: not UTF-8 text; fix: save the file as UTF-8") from None
    except ValueError:  # all that is left: Python refuses to read numbers of thousands of digits
        raise InputError(f"{where}: holds a number of thousands of digits; fix: write it as text, in quotes") from None
    except RecursionError:
        raise InputError(f"{where}: lists or objects are nested too deeply; fix: {fix}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: not a JSON object; fix: {fix}")
    return value


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write a file completely or not at all, even if the machine loses power. Text becomes UTF-8. Makes missing folders."""
    data = content.encode() if isinstance(content, str) else content
    write_parts_atomic(path, (data,))


def write_lines_atomic(path: Path, rows: Iterable[Any], default: Callable[[Any], Any] | None = None) -> None:
    """Write one JSON value a line as `write_atomic` does, row by row, so that memory holds one. default: as of `json.dumps`."""
    write_parts_atomic(path, ((json.dumps(row, ensure_ascii=False, default=default) + "\n").encode() for row in rows))


def write_parts_atomic(path: Path, parts: Iterable[bytes]) -> None:
    """As `write_atomic`, of bytes that come in parts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        check_writing()
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def check_writing() -> None:
    """Ask `WRITE_CHECKS` whether this process may still write."""
    for check in list(WRITE_CHECKS):
        check()


def sync_folder(folder: Path) -> None:
    """Wait until the files that were created, renamed or removed in a folder are so on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Rows of whatever a user names: a file, a folder of files, or a pipe; and the one form that preparation reads, a JSON-lines file.

A pipe (`<(zcat a.gz)`, `/dev/fd/3`, a FIFO, `-` for standard input) can be read once, so it is copied into a file first.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dskd.data.formats import SUFFIXES, Row, data_suffix, format_of, rows_of_file
from dskd.errors import InputError
from dskd.io import read_object, write_lines_atomic

STANDARD_INPUT = Path("-")
# What stands in data folders beside the data.
_METADATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
# As the hub's data sets name the files of their splits.
_SPLIT = re.compile(r"(?:^|[^a-z])(train(?:ing)?|valid(?:ation)?|dev|val|test(?:ing)?|eval(?:uation)?)(?=[^a-z]|$)")
_ONE_NAME = {
    **dict.fromkeys(("training",), "train"), **dict.fromkeys(("valid", "dev", "val"), "validation"),
    **dict.fromkeys(("testing", "eval", "evaluation"), "test"),
}  # fmt: skip


def rows_of(source: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a source.

    Args:
        source: A file, a folder of files, or a folder that `datasets.save_to_disk` wrote.

    Yields:
        (the place in words, and the row), file by file in the order of their names.

    Raises:
        InputError: For a source that is not there, cannot be read, or has no rows.
    """
    found = False
    for file in files_of(source):
        for place_and_row in rows_of_file(file):
            found = True
            yield place_and_row
    if not found:
        raise InputError(f"{source}: has no rows; fix: give data that has some")


def files_of(source: Path) -> list[Path]:
    """The data files that a file or a folder stands for, in order.

    Raises:
        InputError: For a source that is not there, a pipe, and a folder without data files or with several splits.
    """
    if is_pipe(source):
        raise InputError(f"{source}: is a pipe, which can be read once; fix: write it into a file, and give that")
    if not source.is_dir():
        if not source.is_file():
            raise InputError(f"{source}: no such file; fix: correct the path")
        return [source]
    if (source / "dataset_dict.json").is_file():
        splits = read_object(source / "dataset_dict.json").get("splits") or []
        raise InputError(
            f"{source}: holds the splits {', '.join(splits)}; fix: give one of them, {source}/{next(iter(splits), '')}"
        )
    if (source / "state.json").is_file():
        return [source / part["filename"] for part in read_object(source / "state.json").get("_data_files", ())]
    names = sorted(path.relative_to(source) for path in source.rglob("*") if _is_data(path.relative_to(source)))
    files = [source / name for name in names if (source / name).is_file()]
    if not files:
        raise InputError(
            f"{source}: holds no data files; fix: give a folder with {', '.join(SUFFIXES)}, plain or compressed"
        )
    splits = {_ONE_NAME.get(word, word) for name in names for word in _SPLIT.findall(name.as_posix().lower())[-1:]}
    if len(splits) > 1:
        raise InputError(
            f"{source}: holds files of several splits ({', '.join(sorted(splits))}); fix: give the files of one"
        )
    return files


def _is_data(name: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in name.parts)
    return not hidden and name.name not in _METADATA and data_suffix(name) is not None


def source_digest(source: Path, digest: Any) -> str:
    """What the content of a source is identified by.

    Args:
        source: A file or a folder.
        digest: The sha256 of a file's bytes, in hexadecimal: a function of its path.

    Returns:
        For a file whose content says what it is, its sha256; else a sha256 of those of the files, and of what only names say.
    """
    files = files_of(source)
    named = [(data_suffix(file) if data_suffix(file) in (".csv", ".tsv") else "", digest(file)) for file in files]
    if len(named) == 1 and not named[0][0] and not source.is_dir():
        return named[0][1]
    return hashlib.sha256("".join(f"{suffix} {each}\n" for suffix, each in named).encode()).hexdigest()


# --- pipes ---


def is_pipe(source: Path) -> bool:
    """Whether a source can be read only once: standard input, a FIFO, a descriptor of a shell."""
    return source == STANDARD_INPUT or (source.exists() and not source.is_file() and not source.is_dir())


def spooled(source: Path, folder: Path) -> Path:
    """A source that can be read again.

    Args:
        source: Anything that can be named as data.
        folder: Where the content of a pipe goes, under a name that follows from it.

    Returns:
        The source itself where it is no pipe.

    Raises:
        InputError: For standard input that is a terminal, and what cannot be read.
    """
    if not is_pipe(source):
        return source
    if source == STANDARD_INPUT and sys.stdin.isatty():
        raise InputError("-: standard input is a terminal; fix: pipe data into the command, or name a file")
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".input-", delete=False) as copy:
        try:
            with _stream(source) as stream:
                while part := stream.read(1 << 20):
                    digest.update(part)
                    copy.write(part)
            made = folder / f"input-{digest.hexdigest()[:16]}"
            Path(copy.name).replace(made)
        except BaseException:
            Path(copy.name).unlink(missing_ok=True)
            raise
    return made


@contextmanager
def _stream(source: Path) -> Iterator[Any]:
    try:
        if source == STANDARD_INPUT:
            yield sys.stdin.buffer
            return
        with source.open("rb") as stream:
            yield stream
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}); fix: give a file that can") from None


@contextmanager
def readable(source: Path) -> Iterator[Path]:
    """A source that can be read again while the context lasts: the source itself, or a temporary copy of a pipe."""
    if not is_pipe(source):
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="harness-input-") as folder:
        yield spooled(source, Path(folder))


# --- one form ---


def as_json_lines(source: Path, folder: Path) -> Path:
    """The rows of a source as a JSON-lines file in UTF-8, as `dskd.io.read_objects` reads it.

    Args:
        source: A file or a folder.
        folder: Where the file is written if the source is something else; row by row, whole or not at all.

    Returns:
        The source itself where it is such a file, else `rows.jsonl` in the folder.

    Raises:
        InputError: As of `rows_of`.
    """
    if source.is_file() and format_of(source).is_plain_lines:
        return source
    made = folder / "rows.jsonl"
    write_lines_atomic(made, (row for _, row in rows_of(source)), default=as_json)
    return made


def as_json(value: Any) -> Any:
    """A value of a table that JSON has no form for: times and numbers as text, bytes as their count."""
    if isinstance(value, (bytes, bytearray)):
        return f"<{len(value)} bytes>"
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")

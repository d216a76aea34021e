"""Rows of one file: JSON lines, a JSON list, CSV, TSV, Parquet or Arrow, plain or compressed, a row at a time.

What a file holds is seen from its content; only CSV and TSV are told by their names. Memory holds a row, a block of a table, or an
item of a list.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dskd.data.json_values import LONGEST, objects_of
from dskd.errors import InputError
from dskd.io import objects_in, read_objects

Row = dict[str, Any]
Format = Literal["lines", "values", "list", "csv", "tsv", "parquet", "arrow"]

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
# Files that people put where data should be, by how they begin.
_NO_DATA = {
    b"PK\x03\x04": "a zip archive; fix: unpack it",
    b"%PDF": "a PDF; fix: give its text as JSON lines",
    b"version https://git-lfs": "a pointer of git-lfs and not the data; fix: fetch the file with `git lfs pull`",
    b"<!DOCTYPE": "a web page; fix: download the file itself",
    b"<html": "a web page; fix: download the file itself",
}
_BATCH = 512  # rows of a table that are in memory as Python objects


@dataclass(frozen=True)
class FileFormat:
    """What a file holds, how its text is encoded, and by what it is compressed."""

    format: Format
    encoding: str
    compression: str | None

    @property
    def is_plain_lines(self) -> bool:
        """Whether it can be read as JSON lines byte by byte, as `dskd.io.read_objects` does."""
        return (self.format, self.encoding, self.compression) == ("lines", "utf-8", None)


def data_suffix(path: Path) -> str | None:
    """`.csv` of `train.csv.gz`; None for a name that is not one of a data file."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def format_of(path: Path) -> FileFormat:
    """What a file holds. InputError for one that cannot be read, is empty, or holds something else."""
    with _readable(path):
        if not path.is_file():
            raise InputError(f"{path}: no such file; fix: correct the path")
        with path.open("rb") as stream:
            start = stream.read(32)
        compression = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
        with _decompressed(path, compression) as stream:
            head = stream.read(4096)
            while head.isspace() and (more := stream.read(4096)):
                head = more
            if head.startswith(b"PAR1") or head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
                return FileFormat("parquet" if head.startswith(b"PAR1") else "arrow", "utf-8", compression)
            for magic, what in _NO_DATA.items():
                if head.lstrip().startswith(magic):
                    raise InputError(f"{path}: is {what}")
            encoding = "utf-8" if not head else json.detect_encoding(head)
            if not head.removeprefix(codecs.BOM_UTF8).strip():
                raise InputError(f"{path}: the file is empty; fix: one JSON object on each line")
        if (suffix := data_suffix(path)) in (".csv", ".tsv"):
            return FileFormat("csv" if suffix == ".csv" else "tsv", encoding, compression)
        text = head.decode(encoding, errors="replace").lstrip("\ufeff \t\r\n")
        # A line that is a list of numbers is a mistake in a file of lines; one that begins a list of objects says what the file is.
        if text.startswith("[") and (suffix not in (".jsonl", ".ndjson") or re.match(r"\[\s*\{", text)):
            return FileFormat("list", encoding, compression)
        lines = not text.startswith("{") or _first_line_is_whole(path, encoding, compression)
        return FileFormat("lines" if lines else "values", encoding, compression)


def _first_line_is_whole(path: Path, encoding: str, compression: str | None) -> bool:
    """Whether the first line that is not blank is JSON by itself: objects may be written over several lines, as `jq` does."""
    line = ""
    try:
        with _text(path, encoding, compression) as stream:
            line = next((line for line in iter(lambda: stream.readline(LONGEST), "") if line.strip()), "")
        json.loads(line)
    except ValueError:  # bytes that are no text among it: the reader of lines says which
        return not line.rstrip().endswith(("{", "[", ","))
    except RecursionError:
        pass
    return True


def rows_of_file(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of one file.

    Args:
        path: A regular file.

    Yields:
        (the place in words, as `train.jsonl:3` or `train.parquet: row 3`, and the row), in the order of the file.

    Raises:
        InputError: For a file that cannot be read, is cut off, or holds what is no row.
    """
    found = format_of(path)
    if found.is_plain_lines:
        yield from ((f"{path}:{number}", row) for number, row in read_objects(path))
    elif found.format == "lines":
        with _readable(path), _lines(path, found) as lines:
            yield from ((f"{path}:{number}", row) for number, row in objects_in(lines, path))
    elif found.format in ("csv", "tsv"):
        with _readable(path), _text(path, found.encoding, found.compression) as text:
            yield from _table_of_text(path, text, "," if found.format == "csv" else "\t")
    else:
        with _readable(path):
            yield from ((f"{path}: row {number}", row) for number, row in enumerate(_numbered(path, found), 1))


def _numbered(path: Path, found: FileFormat) -> Iterator[Row]:
    if found.format in ("list", "values"):
        with _text(path, found.encoding, found.compression) as text:
            yield from objects_of(path, text, is_list=found.format == "list")
        return
    with _seekable(path, found.compression) as source:
        yield from _table(source, found.format)


# --- bytes and text ---


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Errors of the system, of compression and of encodings as one line."""
    damaged = f"{path}: is cut off or damaged ({{}}); fix: get the file again"
    try:
        yield
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; fix: save the file as UTF-8") from None
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(damaged.format(error)) from None
    except OSError as error:
        if error.errno is None:  # of a decompressor or of pyarrow, which have no errors of their own
            raise InputError(damaged.format((str(error).splitlines() or ["unreadable"])[0])) from None
        raise InputError(f"{path}: cannot be read ({error.strerror}); fix: give a file that can") from None


@contextmanager
def _decompressed(path: Path, compression: str | None) -> Iterator[Any]:
    """The bytes of a file, after decompression."""
    if compression == "zstd":
        import pyarrow

        with pyarrow.input_stream(str(path), compression="zstd") as stream, io.BufferedReader(stream) as buffered:
            yield buffered
        return
    openers: dict[str | None, Any] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open, None: open}
    with openers[compression](path, "rb") as stream:
        yield stream


@contextmanager
def _text(path: Path, encoding: str, compression: str | None) -> Iterator[io.TextIOWrapper]:
    with _decompressed(path, compression) as stream, io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
        yield text


@contextmanager
def _lines(path: Path, found: FileFormat) -> Iterator[Iterable[bytes]]:
    if found.encoding in ("utf-8", "utf-8-sig"):
        with _decompressed(path, found.compression) as stream:
            yield stream
        return
    with _text(path, found.encoding, found.compression) as text:
        yield (line.encode() for line in text)


@contextmanager
def _seekable(path: Path, compression: str | None) -> Iterator[BinaryIO]:
    """A table's file, whose parts are found from its end; one that is compressed as a whole is unpacked into a temporary file."""
    if compression is None:
        with path.open("rb") as stream:
            yield stream
        return
    with tempfile.TemporaryFile() as unpacked:
        with _decompressed(path, compression) as stream:
            shutil.copyfileobj(stream, unpacked)
        unpacked.seek(0)
        yield unpacked


# --- tables ---


def _table_of_text(path: Path, text: io.TextIOWrapper, delimiter: str) -> Iterator[tuple[str, Row]]:
    csv.field_size_limit(
        min(sys.maxsize, 2**31 - 1)
    )  # of the process; a text may have more than the default of 128 KiB
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    names: list[str] = []
    count = 0
    try:
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if not cells:
                continue
            if not names:
                names = [name.removeprefix("\ufeff").strip() for name in cells]
                if "" in names or len(set(names)) < len(names):
                    raise InputError(
                        f"{where}: a column has no name, or two have the same; fix: name each in the first line"
                    )
                continue
            if len(cells) != len(names):
                raise InputError(
                    f"{where}: {len(cells)} fields, and the first line has {len(names)}; fix: put a field with a separator or a new "
                    'line in it into quotes ("")'
                )
            count += 1
            yield where, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise InputError(
            f"{path}:{reader.line_num}: {error}; fix: save the table again, with quotes doubled inside fields"
        ) from None
    if not count:
        raise InputError(
            f"{path}: the file is empty; fix: the names of the columns in the first line, then a line a row"
        )


def _table(source: BinaryIO, form: Format) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        if form == "parquet":
            batches: Iterable[Any] = parquet.ParquetFile(source).iter_batches(_BATCH, use_threads=False)
        else:
            begins = source.read(6)
            source.seek(0)
            batches = _arrow_file(source) if begins == b"ARROW1" else pyarrow.ipc.open_stream(source)
        for batch in batches:
            for start in range(0, batch.num_rows, _BATCH):
                yield from rows_of_table(batch.slice(start, _BATCH))
    except pyarrow.ArrowInvalid as error:
        raise OSError((str(error).splitlines() or ["unreadable"])[0]) from None


def _arrow_file(source: BinaryIO) -> Iterator[Any]:
    import pyarrow

    reader = pyarrow.ipc.open_file(source)
    return map(reader.get_batch, range(reader.num_record_batches))


def rows_of_table(table: Any) -> Iterator[Row]:
    """The rows of a `pyarrow.Table` or batch, all at once: JSON in columns that are said to hold it is decoded.

    A key that is null in an object is left out, for a table writes every key into every object, whether it had it or not.
    """
    decoders = {field.name: _json_in(field.type) for field in table.schema}
    for row in table.to_pylist():
        yield {
            name: _without_nulls(value if (decode := decoders[name]) is None else decode(value))
            for name, value in row.items()
        }


def _json_in(kind: Any) -> Callable[[Any], Any] | None:
    """What decodes the JSON in values of a type of pyarrow's; None where there is none. `datasets` keeps mixed objects as such."""
    import pyarrow

    if isinstance(kind, pyarrow.JsonType):
        return lambda value: None if value is None else json.loads(value)
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind):
        inner = _json_in(kind.value_type)
        return None if inner is None else lambda value: None if value is None else [inner(item) for item in value]
    if pyarrow.types.is_struct(kind):
        fields = {field.name: decode for field in kind if (decode := _json_in(field.type)) is not None}
        if fields:
            return lambda value: (
                None if value is None else value | {k: decode(value[k]) for k, decode in fields.items()}
            )
    return None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value

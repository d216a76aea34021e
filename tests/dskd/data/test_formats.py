"""Rows of one file in every form, whatever its bytes, and one line for each that cannot be read."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from dskd.data.formats import format_of, rows_of_file
from dskd.errors import InputError

# Line separators that are none in JSON lines, a character that is no text elsewhere, letters of other alphabets.
ROWS = [{"prompt": "a é\u2028 \x00 b", "output": "x"}, {"prompt": "東京 😀", "output": "y\r\nz"}]


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes, ".gz": gzip.compress, ".zst": zstd, ".bz2": bz2.compress, ".xz": lzma.compress,
}  # fmt: skip


def lines(ending: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + ending for row in ROWS)


def table_text(delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["prompt", "output"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return text.getvalue()


def parquet_bytes(rows: list[dict[str, Any]] = ROWS) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def arrow_bytes(new: Callable[..., Any]) -> bytes:
    table, sink = pa.Table.from_pylist(ROWS), pa.BufferOutputStream()
    with new(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


PLAIN = {
    "a.jsonl": lines().encode(),
    "no-suffix": lines().encode(),
    "bom.jsonl": b"\xef\xbb\xbf" + lines().encode(),
    "blank lines and CRLF.jsonl": ("\r\n" + lines("\r\n\r\n \r\n")).encode(),
    "utf-16.jsonl": lines().encode("utf-16"),
    "utf-16 without a mark.jsonl": lines().encode("utf-16-be"),
    "utf-32.jsonl": lines().encode("utf-32"),
    "list.json": json.dumps(ROWS, indent=2).encode(),
    "list in utf-16.json": json.dumps(ROWS).encode("utf-16"),
    "list.jsonl": json.dumps(ROWS).encode(),
    "as jq writes.json": "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
    "lines.json": lines().encode(),
    "a.csv": table_text().encode(),
    "bom.csv": b"\xef\xbb\xbf" + table_text().encode(),
    "utf-16.csv": table_text().encode("utf-16"),
    "a.tsv": table_text("\t").encode(),
    "a.parquet": parquet_bytes(),
    "parquet by its content": parquet_bytes(),
    "stream.arrow": arrow_bytes(pa.ipc.new_stream),
    "file.arrow": arrow_bytes(pa.ipc.new_file),
}


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("name", PLAIN)
def test_the_rows_are_the_same_in_every_form(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(COMPRESSIONS[ending](PLAIN[name]))
    assert [row for _, row in rows_of_file(path)] == ROWS


def test_only_plain_lines_in_utf_8_are_read_as_they_are(tmp_path: Path) -> None:
    plain = {name for name, data in PLAIN.items() if _written(tmp_path / name, data).is_plain_lines}
    assert plain == {"a.jsonl", "no-suffix", "blank lines and CRLF.jsonl", "lines.json"}
    assert not _written(tmp_path / "a.jsonl.gz", gzip.compress(PLAIN["a.jsonl"])).is_plain_lines


def _written(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return format_of(path)


BAD: dict[str, tuple[bytes, str]] = {
    "empty.jsonl": (b"", "empty.jsonl: the file is empty"),
    "blank.jsonl": (b" \n\r\n", "blank.jsonl: the file is empty"),
    "empty.json": (b"[]", "empty.json: the list is empty"),
    "names alone.csv": (b"a,b\n", "names alone.csv: the file is empty"),
    "line.jsonl": (b'{"a": 1}\n{"a": \n', "line.jsonl:2: not JSON"),
    "numbers.jsonl": (b"[1]\n", "numbers.jsonl:1: not a JSON object"),
    "text": (b"hello world\n", "text:1: not JSON"),
    "control.jsonl": (b'{"a": "\x00"}\n', "control.jsonl:1: not JSON"),
    "latin.jsonl": ('{"a": "x"}\n{"a": "é"}\n'.encode("latin-1"), "latin.jsonl:2: not UTF-8 text"),
    "latin.csv": ("a,b\né,1\n".encode("latin-1"), "latin.csv: not UTF-8 text"),
    "half.jsonl": (b'{"a": "\\ud800"}', "half.jsonl:1: half of a surrogate pair"),
    "half.json": (b'[{"a": 1}, {"a": "\\udc00"}]', "half.json: row 2: half of a surrogate pair"),
    "cut.json": (b'[{"a": 1},', "cut.json: row 2: not JSON"),
    "comma.json": (b'[{"a": 1} {"b": 2}]', "comma.json: row 2: not JSON (neither , nor ] after an item)"),
    "more.json": (b'[{"a": 1}] 5', "more.json: row 2: not JSON (more text after the list)"),
    "mixed.json": (b'[{"a": 1}, [3]]', "mixed.json: row 2: not a JSON object"),
    "digits.json": (b'[{"a": ' + b"9" * 5000 + b"}]", "digits.json: row 1: not JSON (a number of thousands of digits)"),
    "deep.json": (b"[" * 100_000, "deep.json: row 1: not JSON (lists or objects are nested too deeply)"),
    "fields.csv": (b"a,b\n1,2\n1,2,3\n", "fields.csv:3: 3 fields, and the first line has 2"),
    "twice.csv": (b"a,a\n1,2\n", "twice.csv:1: a column has no name, or two have the same"),
    "quote.csv": (b'a,b\n"x,2\n', "quote.csv:2: unexpected end of data"),
    "cut.jsonl.gz": (gzip.compress(lines().encode() * 99)[:-20], "cut.jsonl.gz: is cut off or damaged"),
    "cut.jsonl.zst": (zstd(lines().encode())[:-5], "cut.jsonl.zst: is cut off or damaged"),
    "cut.jsonl.xz": (lzma.compress(lines().encode())[:-9], "cut.jsonl.xz: is cut off or damaged"),
    "cut.jsonl.bz2": (bz2.compress(lines().encode())[:-9], "cut.jsonl.bz2: is cut off or damaged"),
    "cut.parquet": (parquet_bytes()[:-20], "cut.parquet: is cut off or damaged"),
    "cut.arrow": (arrow_bytes(pa.ipc.new_stream)[:-100], "cut.arrow: is cut off or damaged"),
    "a.zip": (b"PK\x03\x04....", "a.zip: is a zip archive; fix: unpack it"),
    "a.lfs.jsonl": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of git-lfs"),
    "page.jsonl": (b"<!DOCTYPE html>\n<html></html>", "page.jsonl: is a web page"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_line_with_the_place(tmp_path: Path, name: str) -> None:
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        list(rows_of_file(tmp_path / name))
    assert message in str(caught.value)
    assert "fix:" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rows_come_before_the_place_where_a_file_is_cut(tmp_path: Path) -> None:
    """What is read is read as it comes: of a long list, without waiting for its end."""
    (tmp_path / "cut.json").write_bytes(b"[" + b'{"a": 1}, ' * 50_000)
    rows = rows_of_file(tmp_path / "cut.json")
    assert [next(rows)[0] for _ in range(3)][-1].endswith("cut.json: row 3")
    with pytest.raises(InputError, match="row 50001: not JSON"):
        list(rows)


def test_a_key_that_a_table_added_to_objects_is_left_out_and_a_column_is_not(tmp_path: Path) -> None:
    rows = [
        {"input": None, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": ["b"]}]},
        {"input": "x", "messages": []},
    ]
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(rows))
    assert [row for _, row in rows_of_file(tmp_path / "a.parquet")] == rows


def test_json_that_datasets_keeps_in_a_column_is_decoded(tmp_path: Path) -> None:
    import datasets

    rows = [{"calls": [{"a": 1}, {"b": "x"}], "one": {"arguments": {"c": [None]}}}, {"calls": [], "one": None}]
    features = datasets.Features({"calls": datasets.List(datasets.Json()), "one": {"arguments": datasets.Json()}})
    made = datasets.Dataset.from_list(rows, features=features)
    made.to_parquet(str(tmp_path / "a.parquet"))
    first, second = (row for _, row in rows_of_file(tmp_path / "a.parquet"))
    assert first == {"calls": [{"a": 1}, {"b": "x"}], "one": {"arguments": {"c": [None]}}}
    assert second["calls"] == []


def test_a_field_of_a_table_may_be_longer_than_the_library_s_default(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,output\n" + "x" * 300_000 + ",y\n")
    ((_, row),) = rows_of_file(tmp_path / "a.csv")
    assert len(row["prompt"]) == 300_000

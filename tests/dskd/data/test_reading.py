"""Sources: files, folders, pipes of real shells; and the one form that preparation reads."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dskd.data.reading import as_json_lines, files_of, is_pipe, readable, rows_of, source_digest, spooled
from dskd.errors import InputError
from dskd.io import read_objects
from helpers.paths import ROOT


def row(text: str) -> dict[str, str]:
    return {"prompt": text, "output": "o"}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_folder_is_its_data_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    written(tmp_path / "part-2.jsonl", row("c"))
    written(tmp_path / "part-1" / "b.jsonl", row("b"))
    (tmp_path / "part-0.jsonl.gz").write_bytes(gzip.compress(json.dumps(row("a")).encode()))
    (tmp_path / "part-3.csv").write_text("prompt,output\nd,o\n")
    for other in (
        "README.md",
        ".hidden.jsonl",
        "_SUCCESS",
        "dataset_infos.json",
        ".cache/x.jsonl",
        "weights.safetensors",
    ):
        written(tmp_path / other, row("other"))
    assert [found["prompt"] for _, found in rows_of(tmp_path)] == ["a", "b", "c", "d"]
    assert next(iter(rows_of(tmp_path)))[0] == f"{tmp_path}/part-0.jsonl.gz:1"


def test_a_folder_of_save_to_disk_is_read_and_one_of_several_splits_names_them(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": str(k), "output": "o", "messages": [{"content": "x", "calls": [{str(k): 1}]}]} for k in range(5)]
    made = datasets.Dataset.from_list(rows)
    made.select([4, 2]).save_to_disk(tmp_path / "one", num_shards=2)
    assert [found["prompt"] for _, found in rows_of(tmp_path / "one")] == ["4", "2"]
    datasets.DatasetDict(train=made, test=made).save_to_disk(tmp_path / "several")
    with pytest.raises(
        InputError, match=r"several: holds the splits train, test; fix: give one of them, .*several/train"
    ):
        files_of(tmp_path / "several")
    assert len(list(rows_of(tmp_path / "several" / "train"))) == 5


@pytest.mark.parametrize(
    "names",
    [("train.jsonl", "test.jsonl"), ("data/train-00000-of-00001.jsonl", "data/validation-00000-of-00001.jsonl")],
)
def test_files_of_several_splits_are_not_read_as_one(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        written(tmp_path / name, row("a"))
    with pytest.raises(InputError, match=r"holds files of several splits \(test|holds files of several splits \(train"):
        list(rows_of(tmp_path))


def test_train_files_in_parts_are_one_split_and_words_are_no_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "latest-constraint.jsonl"):
        written(tmp_path / name, row(name))
    assert len(list(rows_of(tmp_path))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no such file; fix: correct the path"),
        (lambda path: path.mkdir(), "holds no data files"),
        (lambda path: os.mkfifo(path), "is a pipe, which can be read once"),
        (lambda path: path.symlink_to("nowhere"), "no such file"),
    ],
)
def test_what_is_no_data_is_one_line(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "source")
    with pytest.raises(InputError, match=message):
        list(rows_of(tmp_path / "source"))


def test_links_as_the_hub_s_cache_has_them_are_followed(tmp_path: Path) -> None:
    blob = written(tmp_path / "blobs" / "0123", row("a"))
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "train.jsonl").symlink_to(blob)
    assert len(list(rows_of(tmp_path / "snapshot"))) == 1


def test_a_digest_is_that_of_the_bytes_and_of_what_only_names_say(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row("a"))
    assert source_digest(path, digest) == digest(path)
    table, other = tmp_path / "t.csv", tmp_path / "t.tsv"
    for each in (table, other):
        each.write_text("prompt,output\na,b\n")
    assert len({source_digest(each, digest) for each in (table, other)} | {digest(table)}) == 3
    folder = tmp_path / "folder"
    before = [written(folder / "1.jsonl", row("a")), written(folder / "2.jsonl", row("b"))]
    found = source_digest(folder, digest)
    before[1].rename(folder / "3.jsonl")  # names are no part of an identity
    assert source_digest(folder, digest) == found
    (folder / "3.jsonl").rename(folder / "0.jsonl")  # and the order of rows is
    assert source_digest(folder, digest) != found


def test_a_pipe_is_kept_under_the_name_of_its_content(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    text = "".join(json.dumps(row(str(k))) + "\n" for k in range(1000))
    made = []
    for _ in range(2):
        writer = threading.Thread(target=pipe.write_text, args=(text,))
        writer.start()
        made.append(spooled(pipe, tmp_path / "kept"))
        writer.join()
    assert is_pipe(pipe)
    assert made[0] == made[1]
    assert made[0].name == f"input-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    assert made[0].read_text() == text
    assert [entry.name for entry in (tmp_path / "kept").iterdir()] == [made[0].name]
    assert spooled(made[0], tmp_path / "elsewhere") == made[0]


READ = (
    "import sys; from pathlib import Path; from dskd.data.sources import rows_named; "
    "print(*(row['prompt'] for _, row in rows_named(Path(sys.argv[1]))))"
)


@pytest.mark.parametrize(
    "command",
    [
        "{read} <(cat a.jsonl)",
        "{read} <(gzip -c a.jsonl)",
        "{read} <(cat a.parquet)",
        "{read} <({python} -m json.tool --json-lines a.jsonl)",
        "cat a.jsonl | {read} -",
        "{read} - < a.jsonl",
        "{read} /dev/stdin < a.jsonl",
        "{read} /dev/fd/3 3< a.jsonl",
        "mkfifo pipe; cat a.jsonl > pipe & {read} pipe",
    ],
)
def test_what_a_shell_gives_for_a_file_is_read(tmp_path: Path, command: str) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = [row("a"), row("b")]
    written(tmp_path / "a.jsonl", *rows)
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    command = command.format(read=f"{sys.executable} -c {json.dumps(READ)}", python=sys.executable)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("a b\n", 0), done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"a.jsonl", "a.parquet", "pipe"}


def test_an_error_about_a_pipe_names_it_and_not_its_copy(tmp_path: Path) -> None:
    command = f"""{sys.executable} -c {json.dumps(READ)} <(printf '{{"prompt": "a"}}\\nx\\n')"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert "InputError: /dev/fd/63:2: not JSON" in done.stderr


def test_a_copy_of_a_pipe_is_there_as_long_as_it_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    threading.Thread(target=(tmp_path / "pipe").write_text, args=("x",)).start()
    with readable(tmp_path / "pipe") as file:
        assert file.read_text() == "x"
    assert not file.exists()
    with readable(file) as same:
        assert same == file


def test_one_form_is_the_file_itself_or_written_once(tmp_path: Path) -> None:
    plain = written(tmp_path / "a.jsonl", row("a"), row("é"))
    assert as_json_lines(plain, tmp_path / "out") == plain
    assert not (tmp_path / "out").exists()
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    made = as_json_lines(packed, tmp_path / "out")
    assert made == tmp_path / "out" / "rows.jsonl"
    assert [found for _, found in read_objects(made)] == [row("a"), row("é")]
    assert not [entry for entry in (tmp_path / "out").iterdir() if entry != made]


def test_values_that_json_does_not_have_are_written_as_text(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow as pa
    from pyarrow import parquet

    value = {"day": datetime.date(2026, 1, 2), "price": decimal.Decimal("1.50"), "image": b"1234", "none": float("nan")}
    parquet.write_table(pa.Table.from_pylist([value]), tmp_path / "a.parquet")
    ((_, made),) = read_objects(as_json_lines(tmp_path / "a.parquet", tmp_path))
    assert {key: made[key] for key in ("day", "price", "image")} == {
        "day": "2026-01-02", "price": "1.50", "image": "<4 bytes>",
    }  # fmt: skip


def test_nothing_is_written_where_a_row_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"a": 1}, 2]')
    with pytest.raises(InputError, match="row 2: not a JSON object"):
        as_json_lines(tmp_path / "a.json", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []

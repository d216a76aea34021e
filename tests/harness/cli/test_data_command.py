"""`harness data` as a user calls it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import tasks
from harness.cli import main
from harness.tasks.data_files import DataFile, HubRows, rows_digest

ROWS = [{"question": "How many?", "answer": "#### 3"}]


def data(*arguments: Any) -> Any:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for data; GSM8K's is one row of a repository that stands for the hub's."""
    repository = tmp_path / "hub"
    repository.mkdir()
    (repository / "test.jsonl").write_text(json.dumps({**ROWS[0], "more": 1}) + "\n")
    hub = HubRows(
        str(repository), "train", ("question", "answer"), rows_digest(ROWS, ("question", "answer")), None, "test.jsonl"
    )
    monkeypatch.setattr(tasks.load("gsm8k"), "data", DataFile("gsm8k/test.jsonl", "0" * 64, hub=hub, size=9))
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def test_an_absent_file_is_a_mistake_only_where_its_task_is_named_or_all_are_wanted(folder: Path) -> None:
    assert data("verify").exit_code == 0
    for asked in (["gsm8k"], ["--all-present"]):
        result = data("verify", *asked)
        assert result.exit_code == 2
        assert f"error: {folder}" in result.stderr
        assert "gsm8k/test.jsonl" in result.stderr
        assert result.stderr.count("\n") == 1
    assert data("verify", "small_math").exit_code == 0  # generated, so never absent


def test_the_table_says_what_is_there_and_what_is_not_pinned(folder: Path) -> None:
    lines = {line.split()[0]: line for line in data("verify").stdout.splitlines()}
    assert "absent" in lines["gsm8k"]
    assert "revision not pinned" in lines["gsm8k"]
    assert "generated" in lines["small_math"]
    assert lines["humaneval"].split()[1:3] == ["present", "bytes"]


def test_pull_fetches_once_and_verify_finds_it_right_by_its_rows(folder: Path) -> None:
    result = data("pull", "gsm8k")
    assert (result.exit_code, result.stdout) == (0, f"gsm8k: {folder / 'gsm8k/test.jsonl'}\n")
    assert [json.loads(line) for line in (folder / "gsm8k/test.jsonl").read_text().splitlines()] == ROWS
    again = data("pull", "gsm8k")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "gsm8k: here already\n")
    (row,) = json.loads(data("verify", "gsm8k", "--json").stdout)
    assert (row["status"], row["checked_by"], row["expected_bytes"]) == ("present", "rows", 9)


def test_a_wrong_file_is_named_and_fails_though_nobody_asked_for_it(folder: Path) -> None:
    (folder / "gsm8k").mkdir()
    (folder / "gsm8k/test.jsonl").write_text('{"question": "How ma')
    result = data("verify", "--json")
    assert result.exit_code == 2
    row = next(row for row in json.loads(result.stdout) if row["task"] == "gsm8k")
    assert row["status"] == "wrong"
    assert result.stderr.startswith(
        f"error: {folder / 'gsm8k/test.jsonl'} (gsm8k): cut: the file ends in the middle of line 1"
    )
    assert result.stderr.count("\n") == 1
    assert data("pull", "gsm8k").exit_code == 2


def test_what_cannot_be_fetched_is_one_line(folder: Path) -> None:
    for asked, message in (
        ([], "names no task; fix: name tasks, or give --all"),
        (["gsm8k", "--all"], "names no task; fix: name tasks, or give --all"),
        (["mbpp"], "no source on the hub is known"),
        (["mmlu"], "task mmlu: no such task"),
    ):
        result = data("pull", *asked)
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stderr.count("\n") == 1
    assert data("pull", "small_math").stderr == "small_math: nothing to fetch, its items are generated\n"


def test_without_a_folder_nothing_is_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_DATA")
    result = data("pull", "gsm8k")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "HARNESS_DATA is not set" in result.stderr


def test_real_files_are_right(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    pinned = [name for name in tasks.names() if all(file.sha256 for file in tasks.load(name).data_files)]
    result = data("verify", "--all-present", *pinned)
    assert result.exit_code == 0, result.stderr
    assert {name: result.stdout.count(f"{name} ") for name in ("gsm8k_5shot", "gsm8k_cot_8shot")} == {
        "gsm8k_5shot": 2,  # the test set, and the training set that its examples are from
        "gsm8k_cot_8shot": 1,
    }
    shutil.copytree(real_data / "mbpp", tmp_path / "mbpp")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with (tmp_path / "mbpp/mbpp.jsonl").open("r+b") as file:
        file.truncate(100_000)
    assert "cut: the file ends in the middle of line" in data("verify").stderr


def test_the_real_rows_are_those_that_the_hub_is_held_against(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the checked fields alone, as `pull` writes it, is right by its rows."""
    for name in ("dolly", "gsm8k"):
        task = tasks.load(name)
        monkeypatch.setenv("HARNESS_DATA", str(real_data))
        rows = task.data.rows()
        path = tmp_path / task.data.path
        path.parent.mkdir(parents=True)
        fields = task.data.hub.fields[::-1]  # in another order, so that no bytes are the original's
        path.write_text("".join(json.dumps({key: row[key] for key in fields}) + "\n" for row in rows))
        monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
        assert task.data.check().by == "rows"
        assert task.data.rows() == [{key: row[key] for key in fields} for row in rows]


@pytest.fixture
def leak(tmp_path: Path) -> Path:
    """A training set with the first two questions of small_math, the second with its answer."""
    task = tasks.load("small_math")
    first, second = task.docs(2)
    path = tmp_path / "leak.jsonl"
    rows = [{"q": first["question"], "a": "no"}, {"q": second["question"].upper(), "a": second["answer"]}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_overlap_names_the_items_that_are_found(leak: Path) -> None:
    made_of = ("--prompt", "Q: {q}", "--output", "{a}")
    asked = ["--train", leak, *made_of, "--task", "small_math", "--task", "small_code", "--json"]
    result = data("contamination", *asked)
    assert result.stdout == data("overlap", *asked).stdout  # its old name
    assert "overlap" not in data("--help").stdout.replace("contamination", "")
    assert result.exit_code == 0, result.stderr
    found, other = json.loads(result.stdout)
    assert list(found) == ["task", "items", "examples", "n", "short", "exact", "exact_with_answer", "ngram", "ids"]
    assert (found["task"], found["items"], found["examples"], found["n"]) == ("small_math", 400, 2, 13)
    assert found["ids"]["exact"] == ["0", "1"]
    assert found["ids"]["exact_with_answer"] == ["1"]
    assert set(found["ids"]["ngram"]) >= {"0", "1"}
    assert (other["task"], other["exact"], other["ngram"]) == ("small_code", 0, 0)
    table = data("contamination", "--train", leak, *made_of, "--task", "small_math", "--limit", 1).stdout.splitlines()
    assert table[1].split()[:5] == ["small_math", "400", "1", "1", "0"]


def test_a_training_set_that_cannot_be_read_is_one_line(leak: Path, tmp_path: Path) -> None:
    for asked, message in (
        (("--train", tmp_path / "absent.jsonl"), "absent.jsonl: no such file"),
        (("--train", leak), "leak.jsonl:1: needs text in output, and in prompt or instruction"),
        (("--train", leak, "--prompt", "x", "--output", "{a}"), "--prompt: names no column"),
        (("--train", leak, "--prompt", "{q}"), "these keys go together"),
    ):
        result = data("contamination", *asked, "--task", "small_math")
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert message in result.stderr

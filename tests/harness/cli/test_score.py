"""`harness score` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import tasks
from harness.cli import main
from harness.statistics.intervals import wilson_interval

CODE = "small_code:validation"


def score(*arguments: Path | str) -> Any:
    return CliRunner().invoke(main, ["score", *map(str, arguments)])


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """A file for small_math: right answers but for the first, which is none, and the second, which was cut short."""
    task = tasks.load("small_math")
    lines = [{"id": doc["id"], "output": task.reference(doc)} for doc in task.docs()]
    lines[0]["output"] = "no idea"
    lines[1]["finish_reason"] = "length"
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def completions(tmp_path: Path) -> Path:
    """A file for the validation items of small_code, half as many as test items: canonical solutions."""
    task = tasks.load(CODE)
    path = tmp_path / "completions.jsonl"
    path.write_text("".join(json.dumps({"id": doc["id"], "output": task.reference(doc)}) + "\n" for doc in task.docs()))
    return path


def test_json_has_exactly_the_keys_of_the_contract(answers: Path) -> None:
    result = score("--task", "small_math", "--predictions", answers, "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout)
    total = len(tasks.load("small_math").docs())
    assert list(summary) == ["task", "version", "answers", "metrics", "n"]
    assert (summary["task"], summary["version"], summary["answers"]) == ("small_math", "2", "completion")
    assert list(summary["metrics"]) == ["numeric", "strict", "flexible"]
    numeric = summary["metrics"]["numeric"]
    assert list(numeric) == ["value", "stderr", "ci95", "n"]
    assert numeric["value"] == pytest.approx(100 * (total - 1) / total, abs=1e-4)
    assert numeric["ci95"][0] < numeric["value"] < numeric["ci95"][1] <= 100
    assert summary["n"] == {"total": total, "scored": total, "invalid": 1, "truncated": 1, "harness_error": 0}


def test_the_table_shows_the_value_with_its_interval_and_the_counts(answers: Path) -> None:
    result = score("--task", "small_math", "--predictions", answers)
    assert result.exit_code == 0
    total = len(tasks.load("small_math").docs())
    low, high = (100 * end for end in wilson_interval(total - 1, total))
    assert f"{100 * (total - 1) / total:.2f}" in result.stdout
    assert f"{low:.2f} to {high:.2f}" in result.stdout
    assert "1 invalid, 1 truncated, 0 harness errors" in result.stdout
    assert result.stderr == ""  # no bar where there is no terminal


def test_samples_are_written_a_line_each(answers: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    result = score("--task", "small_math", "--predictions", answers, "--samples-out", out)
    assert result.exit_code == 0
    samples = [json.loads(line) for line in out.read_text().splitlines()]
    assert samples[0] == {
        "id": "0",
        "index": 0,
        "scores": {"numeric": 0.0, "strict": 0.0, "flexible": 0.0},
        "extracted": {"numeric": None, "strict": None, "flexible": None},
        "outcome": "invalid",
    }
    assert samples[2]["outcome"] == "correct"
    assert set(tmp_path.iterdir()) == {answers, out}  # nothing half-written beside it


def test_code_is_refused_without_permission_before_anything_is_read_or_written(tmp_path: Path) -> None:
    out = tmp_path / "samples.jsonl"
    result = score("--task", "small_code", "--predictions", tmp_path / "absent.jsonl", "--samples-out", out)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: task small_code: it runs the code that a model wrote")
    assert "--allow-code-execution" in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not out.exists()


def test_code_is_scored_with_permission(completions: Path) -> None:
    result = score("--task", CODE, "--predictions", completions, "--allow-code-execution", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["metrics"]["pass@1"]["value"] == 100.0


def test_what_the_harness_could_not_run_is_no_wrong_answer_and_makes_the_command_fail(
    completions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.sandbox import Execution, pool

    first = tasks.load(CODE).docs(1)[0]

    def fails_on_the_first(program: Any, *more: Any) -> Execution:
        if program.source.startswith(first["prompt"]):
            return Execution("harness_error", "no room", 0.0)
        return Execution("passed", "", 0.0)

    monkeypatch.setattr(pool, "run", fails_on_the_first)
    result = score("--task", CODE, "--predictions", completions, "--allow-code-execution", "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert summary["metrics"]["pass@1"]["value"] == 100.0
    assert summary["n"]["harness_error"] == 1
    assert summary["n"]["scored"] == summary["n"]["total"] - 1
    assert "could not be scored" in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [], "answers.jsonl: the file is empty"),
        (lambda lines: lines[:7], "ids ('7', '8', '9', '10', '11', ...) of "),
        (
            lambda lines: [*lines, '{"id": "x", "output": ""}'],
            ": 1 unknown id ('x'); fix: use the data set's ids, '0' to ",
        ),
        (lambda lines: [*lines[:4], "{", *lines[5:]], "answers.jsonl:5: not JSON"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_2(answers: Path, tmp_path: Path, change: Callable, message: str) -> None:
    answers.write_text("".join(line + "\n" for line in change(answers.read_text().splitlines())))
    out = tmp_path / "samples.jsonl"
    result = score("--task", "small_math", "--predictions", answers, "--samples-out", out)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_an_unknown_task_and_a_folder_as_output_are_refused(answers: Path, tmp_path: Path) -> None:
    result = score("--task", "mmlu", "--predictions", answers)
    assert result.exit_code == 2
    assert "task mmlu: no such task; known: aime2024, aime2025, " in result.stderr
    result = score("--task", "small_math", "--predictions", answers, "--samples-out", tmp_path)
    assert result.exit_code == 2
    assert "is a folder; fix: name a file" in result.stderr


def test_an_output_that_cannot_be_made_is_refused_before_the_work_and_a_device_is_kept(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    assert score("--task", "small_math", "--predictions", answers, "--samples-out", null).exit_code == 0
    assert null.is_symlink()
    monkeypatch.setattr("harness.evaluation.score.score_predictions", lambda *_, **__: pytest.fail("worked"))
    result = score("--task", "small_math", "--predictions", answers, "--samples-out", answers / "samples.jsonl")
    assert result.exit_code == 2
    assert "answers.jsonl is a file, not a folder" in result.stderr
    assert result.stderr.count("\n") == 1


def test_missing_data_says_how_to_give_it(answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks.load.cache_clear()
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    result = score("--task", "gsm8k", "--predictions", answers)
    tasks.load.cache_clear()
    assert result.exit_code == 2
    assert "HARNESS_DATA is not set" in result.stderr


def test_help_shows_examples() -> None:
    result = score("--help")
    assert result.exit_code == 0
    assert "harness score --task gsm8k --predictions answers.jsonl" in result.stdout


def test_it_runs_as_a_program(answers: Path) -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            "from harness.cli import main; main()",
            "score",
            "--task",
            "small_math",
            "--predictions",
            answers,
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout)["task"] == "small_math"

"""`harness evaluate` as a user calls it: a model folder in, scores, answers and records out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness import tasks
from harness.cli import main
from harness.evaluation.summary import summarise
from harness.runs.records import read_record
from helpers.tiny_models import write_gpt2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("models") / "tiny_model", "Question: how many apples? Answer: 42")


def evaluate(model: Path, output: Path, *arguments: Any) -> Any:
    command = ["evaluate", "--model", model, "--engine", "transformers", "--max-new-tokens", 4, "--output-dir", output]
    return CliRunner().invoke(main, [*map(str, command), *map(str, arguments)])


@pytest.fixture(scope="module")
def evaluated(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    output = tmp_path_factory.mktemp("run")
    return output, evaluate(model, output, "--task", "small_math", "--task", "small_instruct", "--limit", 5, "--json")


def test_each_task_has_its_scores_samples_and_record(evaluated: tuple[Path, Any]) -> None:
    output, result = evaluated
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["model"] == "tiny-model"
    assert [each["task"] for each in printed["results"]] == ["small_math", "small_instruct"]
    for each in printed["results"]:
        folder = output / "cells" / "tiny-model" / "teacher" / "eval" / f"{each['task']}@v{each['version']}"
        assert each["folder"] == str(folder)
        samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        assert [sample["id"] for sample in samples] == [doc["id"] for doc in tasks.load(each["task"]).docs(5)]
        summary = summarise(tasks.load(each["task"]), samples)
        assert each["n"] == summary["n"]
        assert each["generated_tokens"] == sum(sample["generated_tokens"] for sample in samples) > 0
        assert {name: metric["value"] for name, metric in each["metrics"].items()} == {
            name: metric["value"] for name, metric in summary["metrics"].items()
        }
        record = read_record(folder / "result.json")
        assert (record.cell.teacher, record.cell.student, record.cell.task) == ("tiny-model", None, each["task"])
        assert record.environment.engine == each["engine"] == "transformers"


def test_the_same_again_finds_it_done_and_another_task_joins(model: Path, evaluated: tuple[Path, Any]) -> None:
    output, first = evaluated
    again = evaluate(model, output, "--task", "small_math", "--task", "small_instruct", "--limit", 5, "--json")
    assert again.exit_code == 0
    assert again.stdout == first.stdout
    assert again.stderr == ""  # no job was started
    table = evaluate(model, output, "--task", "small_math", "--limit", 5)
    assert table.exit_code == 0
    assert table.stdout.splitlines()[1].split()[:2] == ["small_math", "numeric"]
    board = CliRunner().invoke(main, ["leaderboard", "--results", str(output)])
    assert board.exit_code == 0
    assert "tiny-model" in board.stdout


@pytest.mark.slow  # three evaluations
def test_parts_are_no_other_evaluation_and_give_the_same(
    model: Path, evaluated: tuple[Path, Any], tmp_path: Path
) -> None:
    output, first = evaluated
    several = ("--task", "small_math", "--task", "small_instruct", "--limit", 5, "--parts", 2)
    found = evaluate(model, tmp_path, *several, "--max-batch-size", 2)
    assert found.exit_code == 0, found.output
    for file in sorted(output.rglob("samples.jsonl")):
        assert (tmp_path / file.relative_to(output)).read_bytes() == file.read_bytes()
    log = (tmp_path / "cells" / "tiny-model" / "teacher" / "eval" / "log.txt").read_text()
    assert "with transformers in 2 processes" in log
    assert evaluate(model, output, *several, "--json").stdout == first.stdout  # done already


def test_another_evaluation_of_that_name_is_refused_and_nothing_is_lost(
    model: Path, evaluated: tuple[Path, Any]
) -> None:
    output, _ = evaluated
    record = output / "cells" / "tiny-model" / "teacher" / "eval" / "small_math@v2" / "result.json"
    before = record.read_bytes()
    result = evaluate(model, output, "--task", "small_math", "--limit", 6)
    assert result.exit_code == 2
    assert "small_math@v2: holds another evaluation (limit: 5 -> 6); fix: give another --name" in result.stderr
    assert result.stderr.count("\n") == 1
    assert record.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "mmlu"], "task mmlu: no such task"),
        (["--task", "small_math", "--engine", "vlm"], "--engine vlm: no such engine; did you mean 'vllm'?"),
        (["--task", "small_math", "--model", "/nowhere"], "--model /nowhere: no folder '/nowhere'"),
        (["--task", "small_math", "--name", "a b"], "--name a b: is no name"),
        (["--task", "small_math", "--system", "Be brief."], "--system goes with --template chat"),
        (["--task", "small_math", "--template", "chat"], "no chat template"),
        (["--task", "small_code"], "pass --allow-code-execution"),
        (
            ["--task", "small_math", "--tensor-parallel", "2"],
            "`tensor_parallel` means nothing with engine: transformers; fix: ",
        ),
        (["--task", "small_math", "--parts", "0"], "--parts"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    model: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = evaluate(model, tmp_path / "run", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_help_shows_examples() -> None:
    result = CliRunner().invoke(main, ["evaluate", "--help"])
    assert result.exit_code == 0
    assert "harness evaluate --model models/student --task gsm8k --task dolly" in result.stdout

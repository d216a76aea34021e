"""Tasks scored by log-likelihoods on the command line: evaluated as any other, and refused where completions are meant."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dskd.errors import InputError
from harness import tasks
from harness.cli import main
from harness.config.matrix_file import read_matrix
from harness.evaluation.summary import summarise
from harness.planning.plan import make_plan
from harness.runs.records import read_record
from helpers.lm_eval_folder import write_tasks
from helpers.tiny_models import write_gpt2

OWN = '''
from harness.metrics.sample import SampleScore
from harness.tasks import LogLikelihoodTask, Metric


class Tides(LogLikelihoodTask):
    """Which of two words follows."""

    name = "tides"
    version = "1"
    metrics = (Metric("likelier"),)

    def documents(self):
        return [{"id": str(n), "text": text} for n, text in enumerate(("The moon pulls the", "Ebb and"))]

    def continuations(self, doc):
        return [(doc["text"], " sea"), (doc["text"], " table")]

    def reference(self, doc):
        return " sea"

    def score_loglikelihoods(self, docs, found, advance):
        right = [first.value > second.value for first, second in found]
        return [SampleScore({"likelier": 100.0 * each}, {}, "correct" if each else "wrong") for each in right]
'''


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("models") / "tiny_model", "The capital of Portugal is Lisbon")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HARNESS_LM_EVAL_TASKS", str(tmp_path / "tasks"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tasks.load.cache_clear()
    yield write_tasks(tmp_path / "tasks")
    tasks.load.cache_clear()


def harness(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.slow
def test_they_are_evaluated_beside_others_and_found_done(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    own = f"{tmp_path / 'own.py'}:Tides"
    command = ["evaluate", "--model", model, "--engine", "transformers", "--limit", 2, "--json"]
    command += ["--task", "lm_eval/capitals", "--task", "small_math", "--task", own]
    result = harness(*command, "--output-dir", tmp_path / "run")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)["results"]
    assert [each["generated_tokens"] > 0 for each in printed] == [False, True, False]
    for each, name in ((printed[0], "lm_eval/capitals"), (printed[2], own)):
        samples = [json.loads(line) for line in (Path(each["folder"]) / "samples.jsonl").read_text().splitlines()]
        summary = summarise(tasks.load(name), samples)
        assert each["n"] == summary["n"]
        assert {name: metric["value"] for name, metric in each["metrics"].items()} == {
            name: metric["value"] for name, metric in summary["metrics"].items()
        }
        assert [len(sample["loglikelihoods"]) for sample in samples] == [6, 6] if name != own else [2, 2]
        record = read_record(Path(each["folder"]) / "result.json")
        assert (record.cost.tokens, record.environment.engine) == (0, "transformers")
        assert not (Path(each["folder"]) / "answers.jsonl").exists()
    again = harness(*command, "--output-dir", tmp_path / "run")
    assert json.loads(again.stdout)["results"] == printed


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "--output", "answers.jsonl"],
        ["parity"],
        ["score", "--predictions", "answers.jsonl"],
    ],
    ids=lambda command: command[0],
)
def test_where_completions_are_meant_they_are_refused_in_one_line(model: Path, command: list[str]) -> None:
    of_model = [] if command[0] == "score" else ["--model", model]
    result = harness(*command, *of_model, "--task", "lm_eval/letters")
    assert result.exit_code == 2
    assert "task lm_eval/letters: it is scored by log-likelihoods, and there are no completions; fix: " in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [["--max-new-tokens", "4"], ["--max-reasoning-tokens", "9"], ["--protocol", "minillm-sampling"]],
    ids=lambda settings: settings[0],
)
def test_settings_of_completions_are_refused_before_anything_is_written(
    model: Path, tmp_path: Path, settings: list[str]
) -> None:
    result = harness(
        "evaluate", "--model", model, "--task", "lm_eval/letters", *settings, "--output-dir", tmp_path / "run"
    )
    assert result.exit_code == 2
    assert "scored by log-likelihoods and generates nothing, so not by the protocol" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_matrix_names_the_place_of_such_a_setting(tiny: dict[str, Any], write_matrix: Callable[[Any], Path]) -> None:
    tiny["tasks"] = {"letters": {"task": "lm_eval/letters", "max_new_tokens": 4}}
    with pytest.raises(InputError, match=r"matrix\.yaml: tasks\.letters\.task: task lm_eval/letters: it is scored by"):
        read_matrix(write_matrix(tiny))


def test_other_prompts_than_those_of_the_training_need_no_permission(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    rows = [{"prompt": f"Say {n}\n### Response:\n", "output": str(n)} for n in range(8)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny["data"] = {"student": {"file": str(tmp_path / "train.jsonl")}}
    tiny["tasks"] = {"lm_eval/letters": {}}
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    assert any(job.kind == "evaluate" for job in plan.jobs.values())


@pytest.mark.slow
def test_a_matrix_runs_and_its_tables_and_report_have_them(
    tiny: dict[str, Any],
    write_matrix: Callable[[Any], Path],
    harness: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
    tiny["tasks"] = {"lm_eval/letters": {"limit": 4}, "lm_eval/last_word": {}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    run = harness("run", "--matrix", "tiny.yaml", "--output-dir", "run", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "lm_eval/letters (acc,none, n=4)" in run.stdout
    assert "lm_eval/last_word (acc,none, n=7)" in run.stdout
    for command in (
        ["leaderboard", "--results", "run"],
        ["compare", "kd", "teacher", "--results", "run"],
        ["report", "run", "--output", "report.html"],
        ["baseline", "update", "run", "--baseline", "baseline.json", "--reason", "first"],
        ["check", "run", "--baseline", "baseline.json"],
    ):
        done = harness(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "The capital of Portugal is" in (tmp_path / "report.html").read_text(encoding="utf-8")

"""Tasks, engines and executors from outside the package: in a file of one's own, and by an installed package's entry point."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.errors import InputError
from harness import engines, tasks
from harness.cli import main
from harness.evaluation.evaluate import EvaluationOptions, evaluate
from harness.executors import EXECUTORS
from helpers.paths import ROOT
from helpers.tiny_models import write_gpt2

PAGE = ROOT / "docs" / "own-task.md"
ENGINE = """
from harness.engines.transformers import TransformersEngine

class Louder(TransformersEngine):
    name = "louder"
    preference = -1

    def _finish(self, *arguments):
        completion = super()._finish(*arguments)
        object.__setattr__(completion, "text", " Paris")
        return completion
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_gpt2(tmp_path_factory.mktemp("models") / "tiny", "The capital of France is Paris")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A folder of modules that counts as an installed package with these entry points."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "capitals_of_test.py").write_text(code)
    (tmp_path / "louder_of_test.py").write_text(ENGINE)
    (tmp_path / "queue_of_test.py").write_text("class Queue: ...\n")
    information = tmp_path / "mine-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[harness.tasks]\ncapitals = capitals_of_test:Capitals\ngone = no_such_module:Task\n"
        "[harness.engines]\nlouder = louder_of_test:Louder\n"
        "[harness.executors]\nqueue = queue_of_test:Queue\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    tasks.load.cache_clear()
    yield tmp_path
    tasks.load.cache_clear()
    for name in ("capitals_of_test", "louder_of_test", "queue_of_test"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("installed", [True, False])
def test_a_task_and_an_engine_of_ones_own_are_evaluated(package: Any, model: Any, installed: bool) -> None:
    task = "capitals" if installed else f"{package}/capitals_of_test.py:Capitals"
    engine = "louder" if installed else f"{package}/louder_of_test.py:Louder"
    (done,) = evaluate(model, {task: EvaluationOptions()}, engine=engine)
    assert (done.task, done.engine) == ("capitals", "louder")
    assert [sample["scores"]["exact_match"] for sample in done.samples] == [100.0, 0.0, 0.0]
    assert [doc["id"] for doc in tasks.load(f"{task}:validation").docs()] == ["Peru", "Norway"]
    assert len(tasks.load(task).identity()["task_code"]) == 64
    assert ("capitals" in tasks.names(), "louder" in engines.names()) == (True, True)


def test_the_commands_take_a_task_in_a_file(package: Any, model: Any, tmp_path: Path) -> None:
    task, output = f"{package}/capitals_of_test.py:Capitals", tmp_path / "answers.jsonl"
    command = ["generate", "--model", model, "--task", task, "--engine", "transformers", "--output", output]
    assert CliRunner().invoke(main, [*map(str, command)]).exit_code == 0
    scored = CliRunner().invoke(main, ["score", "--task", task, "--predictions", str(output), "--json"])
    assert json.loads(scored.stdout)["n"]["total"] == 3


def test_a_task_in_a_file_is_evaluated_with_its_code_in_the_identity(package: Any, model: Any, tmp_path: Path) -> None:
    task = f"{package}/capitals_of_test.py:Capitals"
    command = [
        "evaluate",
        "--model",
        model,
        "--task",
        task,
        "--engine",
        "transformers",
        "--output-dir",
        tmp_path / "run",
    ]
    assert CliRunner().invoke(main, [*map(str, command)]).exit_code == 0
    (record,) = (tmp_path / "run").rglob("result.json")
    assert len(json.loads(record.read_text())["identity"]["parts"]["task_code"]) == 64


def test_an_executor_of_an_installed_package_and_of_a_file_is_found(package: Any) -> None:
    assert EXECUTORS.names() == ["local", "queue", "ray", "slurm"]
    assert EXECUTORS.load("queue").__name__ == "Queue"
    assert EXECUTORS.load(f"{package}/queue_of_test.py:Queue").__name__ == "Queue"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("capital", r"task capital: no such task; did you mean 'capitals'\?"),
        ("gone", r"task gone: no_such_module:Task cannot be imported \(.*\); fix:"),
        ("absent.py:Task", "task absent.py:Task: no such file; fix:"),
        ("HERE/capitals_of_test.py:Capital", "has no Capital; fix: define it there"),
        ("HERE/capitals_of_test.py:CAPITALS", "is no subclass of harness.tasks.Task; fix:"),
        ("HERE/capitals_of_test.py:Task", "its class has no documents; fix: define it"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(package: Any, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        tasks.load(name.replace("HERE", str(package)))
    assert "\n" not in str(error.value)

"""A new kind of step is one file outside the package: planned, run in a process of its own, found done, and a model of a matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.plugins import class_at, reference_to
from harness.executors.local import Executor
from harness.planning.plan import Plan, PlannedJob, decide, make_plan
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
from harness.steps.base import Step
from helpers.executor_runs import Recorder
from helpers.plan_world import write_folders

OWN = """
import shutil
from harness.steps.base import ModelInput, Of, Step

class Count(Step):
    kind, version, place, product = "count", 1, "counts", "count.txt"
    text: str

    @property
    def is_target(self):
        return True

    def run(self, job):
        self.path(job.root).write_text(str(len(self.text.split())))
        job.finish(job.output, report={"text": self.text})

class Merged(Step, ModelInput):
    kind, version, place, product = "merged", 1, "merged", "model"
    models: list[Of[ModelInput]]
    weight: float = 0.5

    @property
    def tokenizer_input(self):
        return self.models[0].tokenizer_input

    def run(self, job):
        shutil.copytree(self.models[0].path(job.root), self.path(job.root))
        job.finish(job.output)
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own_step.py"
    path.write_text(OWN)
    return path


def execute(jobs: list[PlannedJob]) -> list[str]:
    outcomes = Runner(Executor(Settings(jobs[0].root)), Recorder(), jobs=1, fail_fast=True).run(jobs)
    return [f"{outcome.status} {outcome.reason}".strip() for outcome in outcomes.values()]


def test_a_step_from_a_file_is_planned_run_and_found_done(own: Path, tmp_path: Path) -> None:
    count = class_at(f"{own}:Count")
    assert class_at(reference_to(count)) is count
    root = tmp_path / "run"
    (job,) = decide([count(text="three short words")], root, "stale").values()
    assert (job.action, job.reason) == ("run", "not made yet")
    assert execute([job]) == ["done"]
    assert job.step.path(root).read_text() == "3"
    (again,) = decide([count(text="three short words")], root, "stale").values()
    assert (again.action, again.status) == ("keep", "done")
    assert execute([job]) == ["done"]
    assert "nothing to do" in (job.folder / "log.txt").read_text()
    (other,) = decide([count(text="other words")], root, "stale").values()
    assert other.action == "run"


def test_a_step_whose_file_is_gone_fails_in_one_line(own: Path, tmp_path: Path) -> None:
    (job,) = decide([class_at(f"{own}:Count")(text="a")], tmp_path / "run", "stale").values()
    own.unlink()
    assert execute([job]) == [f"failed {own}: no such file; fix: correct the path"]


def test_a_file_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (")
    for _ in range(2):
        with pytest.raises(InputError, match=r"broken\.py: cannot be loaded \(SyntaxError"):
            class_at(f"{tmp_path}/broken.py:Own")


@pytest.fixture
def matrix(tiny: dict[str, Any], own: Path, tmp_path: Path) -> dict[str, Any]:
    folders = write_folders(tmp_path / "folders")
    tiny["models"] = {name: {"path": str(folders / name)} for name in ("teacher", "student")}
    tiny["models"]["merged"] = {"step": f"{own}:Merged", "models": ["student", "teacher"], "weight": 0.25}
    tiny["models"]["part"] = {"layers_of": "merged", "layers": 1}
    tiny["pairs"] = [{"teacher": "teacher", "student": name, "methods": ["kd"]} for name in ("merged", "part")]
    tiny["tasks"] = {}
    return tiny


@pytest.fixture
def plan_of(write_matrix: Callable[[Any], Path], tmp_path: Path) -> Callable[[Any], Plan]:
    return lambda content: make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")


def merged(plan: Plan) -> PlannedJob:
    (job,) = (job for job in plan.jobs.values() if job.kind == "merged")
    return job


def test_a_matrix_has_a_model_that_a_step_of_the_user_s_makes(
    matrix: dict[str, Any], plan_of: Callable[[Any], Plan], tmp_path: Path
) -> None:
    plan = plan_of(matrix)
    job = merged(plan)
    assert job.title == "model merged"
    assert len(job.step.fingerprint.parts["step_code"]) == 64  # another file is another model
    assert execute([job]) == ["done"]
    assert (job.step.path(plan.root) / "model.safetensors").read_bytes() == b"student"
    again = merged(plan_of(matrix))
    assert (again.action, again.status) == ("keep", "done")
    for key in ("train:teacher__merged/kd/seed1", "train:teacher__part/kd/seed1"):
        step = Step.model_validate(plan.jobs[key].spec().step)
        assert step.fingerprint.hash == plan.jobs[key].step.fingerprint.hash
    matrix["models"]["merged"]["weight"] = 0.75
    changed = plan_of(matrix)
    assert merged(changed).action == "run"
    assert changed.jobs["train:teacher__merged/kd/seed1"].step.fingerprint.parts["student"]["weight"] == 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": "nowhere.py:Merged"}, r"models\.merged\.step: .*nowhere\.py: no such file"),
        ({"step": "harness.steps.base:Merged"}, r"models\.merged\.step: harness\.steps\.base: has no class 'Merged'"),
        (
            {"step": "harness.steps.world:World"},
            r"models\.merged\.step: 'harness.steps.world:World' makes no model; fix",
        ),
        ({"weights": 1}, r"models\.merged\.weights: unknown key; did you mean 'weight'\?"),
        ({"weight": "much"}, r"models\.merged\.weight: Input should be a valid number.*; fix"),
        ({"models": None}, r"models\.merged\.models: Input should be a valid list.*; fix"),
        ({"models": ["studen"]}, r"models\.merged\.models: no model 'studen'; did you mean 'student'\?"),
        ({"models": ["merged"]}, r"models\.merged: is made from itself; fix"),
        ({"models": ["part"]}, r"models\.merged: is made from itself; fix"),
    ],
)
def test_a_mistake_in_such_a_model_is_named_with_its_key(
    matrix: dict[str, Any], plan_of: Callable[[Any], Plan], change: dict[str, Any], message: str
) -> None:
    matrix["models"]["merged"] |= change
    with pytest.raises(InputError, match=r"matrix\.yaml: " + message):
        plan_of(matrix)

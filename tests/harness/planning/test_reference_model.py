"""Planning a method that compares with a frozen model: whose step it needs, what its identity is, and which models it cannot be."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.planning.plan import Plan, make_plan
from harness.planning.single_training import single_plan
from harness.steps.training import Train
from helpers.plan_world import write_folders

ON_POLICY = {"rollouts": {"share": 1.0, "max_new_tokens": 4}}
Planned = Callable[..., Plan]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "folders")


@pytest.fixture
def plan_of(write_matrix: Callable[[Any], Path], tmp_path: Path, folders: Path) -> Planned:
    def plan(options: dict[str, Any], **models: Any) -> Plan:
        content = {
            "schema_version": 1,
            "name": "frozen",
            "data": {"train": {"file": str(folders / "train.jsonl")}},
            "models": {
                "teacher": {"path": str(folders / "teacher")},
                "student": {"path": str(folders / "student")},
                **models,
            },
            "pairs": [{"teacher": "teacher", "student": "student", "methods": ["g-opd"]}],
            "methods": {"g-opd": options},
            "training": {"data": "train", "steps": 3, **ON_POLICY},
            "teacher_outputs": {"kind": "live"},
            "seeds": [0],
            "tasks": {},
        }
        return make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")

    return plan


def only_training(plan: Plan) -> Train:
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, Train))
    return step


def test_by_default_it_is_the_student_as_it_starts(plan_of: Planned) -> None:
    step = only_training(plan_of({}))
    assert step.frozen is None
    assert [model.name for model in step.loads] == ["student", "teacher", "student"]


def test_a_model_of_the_matrix_is_an_input_and_its_content_the_identity(plan_of: Planned, folders: Path) -> None:
    default = only_training(plan_of({}))
    named = only_training(plan_of({"reference": "teacher"}))
    assert named.frozen is not None
    assert [model.name for model in named.loads] == ["student", "teacher", "teacher"]
    assert named.fingerprint.hash != default.fingerprint.hash
    # By another name, or by its folder, it is the same training; where it lies is no part of it.
    again = only_training(plan_of({"reference": "other"}, other={"path": str(folders / "teacher")}))
    by_folder = only_training(plan_of({"reference": str(folders / "teacher")}))
    shutil.copytree(folders / "teacher", folders / "copy")
    copied = only_training(plan_of({"reference": str(folders / "copy")}))
    assert {step.fingerprint.hash for step in (again, by_folder, copied)} == {named.fingerprint.hash}


def test_a_model_that_the_run_makes_is_made_before(plan_of: Planned) -> None:
    plan = plan_of({"reference": "small"}, small={"layers_of": "student", "layers": 1, "seed": 0})
    step = only_training(plan)
    assert step.frozen is not None
    assert step.frozen.id in {need.id for need in step.needs}
    assert list(plan.jobs).index(step.frozen.id) < list(plan.jobs).index(step.id)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"reference": "cross"}, r"methods\.g-opd\.reference: reference 'cross' .*two vocabularies; fix: name a model"),
        ({"reference": "/nowhere"}, r"methods\.g-opd\.reference: .*nowhere"),
        ({"reference": "both"}, r"methods\.g-opd\.reference: both is no model that runs here; fix: name one"),
    ],
)
def test_what_cannot_be_a_reference_is_named(
    plan_of: Planned, folders: Path, options: dict[str, Any], reason: str
) -> None:
    models = {"cross": {"path": str(folders / "other")}, "both": {"teachers": {"teacher": 0.5, "student": 0.5}}}
    with pytest.raises(InputError, match=reason):
        plan_of(options, **models)


def test_one_training_by_a_command_knows_it_too(folders: Path, tmp_path: Path) -> None:
    def plan(**options: Any) -> Train:
        found = single_plan(
            teacher=folders / "teacher",
            student=folders / "student",
            data=folders / "train.jsonl",
            method="g-opd",
            method_options=options,
            training={"steps": 3, **ON_POLICY},
            teacher_outputs={},
            launch={},
            template={},
            seed=0,
            limit=None,
            output=tmp_path / "out",
        )
        return only_training(found)

    assert plan().frozen is None
    assert plan(reference=str(folders / "teacher")).frozen is not None
    with pytest.raises(InputError, match=r"--option reference: .*two vocabularies"):
        plan(reference=str(folders / "other"))

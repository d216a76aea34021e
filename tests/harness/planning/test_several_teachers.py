"""Planning with several teachers of one student: what each teaches, its cache, and what does not go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.config.selection import cells
from harness.planning.plan import Plan, make_plan
from harness.steps.several_teachers import TaughtBySeveral
from harness.steps.teacher_cache import TeacherCache
from harness.steps.training import Train
from helpers.plan_world import write_folders

Content = dict[str, Any]
Planned = Callable[..., Plan]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    folders = write_folders(tmp_path / "folders")
    rows = [{"prompt": f"a {k}\n", "output": "b", "expert": "first" if k % 2 else "second"} for k in range(6)]
    (folders / "routed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folders


@pytest.fixture
def plan_of(write_matrix: Callable[[Any], Path], tmp_path: Path, folders: Path) -> Planned:
    def plan(together: Content, method: str = "uld", **more: Any) -> Plan:
        content = {
            "schema_version": 1,
            "name": "several",
            "data": {"train": {"file": str(folders / "routed.jsonl")}},
            "models": {
                "first": {"path": str(folders / "teacher")},
                "second": {"path": str(folders / "other")},
                "both": together,
                "student": {"path": str(folders / "student")},
            },
            "pairs": [{"teacher": "both", "student": "student", "methods": [method]}],
            "training": {"data": "train", "steps": 3},
            "seeds": [0],
            "tasks": {},
            **more,
        }
        return make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")

    return plan


def only_training(plan: Plan) -> Train:
    (step,) = (job.step for job in plan.jobs.values() if isinstance(job.step, Train))
    return step


ROUTED = {"teachers": ["first", "second"], "route": "expert"}
WEIGHTED = {"teachers": {"first": 0.7, "second": 0.3}}


def test_a_routed_teacher_gets_its_rows_and_a_cache_of_them(plan_of: Planned) -> None:
    plan = plan_of(ROUTED)
    step = only_training(plan)
    assert isinstance(step.data, TaughtBySeveral)
    assert step.cache is None
    routes = {part.name: part.data.route for part in step.data.parts}
    assert [(name, route.column, route.teacher) for name, route in routes.items() if route] == [
        ("first", "expert", "first"),
        ("second", "expert", "second"),
    ]
    caches = [job.step for job in plan.jobs.values() if isinstance(job.step, TeacherCache)]
    assert {cache.teacher.name for cache in caches} == {"first", "second"}
    assert {cache.data.route.teacher for cache in caches if cache.data.route} == {"first", "second"}


def test_weighted_teachers_teach_all_rows(plan_of: Planned) -> None:
    step = only_training(plan_of(WEIGHTED, teacher_outputs={"kind": "live"}))
    assert isinstance(step.data, TaughtBySeveral)
    assert [(part.weight, part.data.route, part.cache) for part in step.data.parts] == [
        (0.7, None, None),
        (0.3, None, None),
    ]


def test_weights_and_routes_are_parts_of_an_identity(
    plan_of: Planned,
) -> None:
    hashes = [
        only_training(plan_of(together)).fingerprint.hash
        for together in (ROUTED, WEIGHTED, {"teachers": {"first": 0.6, "second": 0.4}})
    ]
    assert len(set(hashes)) == 3


def test_each_teacher_is_scored_by_itself(plan_of: Planned) -> None:
    matrix = plan_of(ROUTED).matrix
    assert matrix is not None
    assert [cell.teacher for cell in cells(matrix) if cell.student is None] == ["first", "second"]
    assert [cell.folder for cell in cells(matrix) if cell.student] == ["both__student/uld/seed0"]


@pytest.mark.parametrize(
    ("together", "method", "message"),
    [
        ({"teachers": ["first", "second"]}, "uld", "does not say which teacher teaches what; fix: give `route`"),
        ({"teachers": {"first": 0.7, "second": 0.7}}, "uld", "the weights sum to 1.4; fix: make them sum to 1"),
        ({"teachers": {"first": 0.5, "second": 0.5}, "route": "expert"}, "uld", "has weights and a route"),
        ({"teachers": ["first", "third"], "route": "expert"}, "uld", "no model 'third'; known: both, first"),
        ({"teachers": ["first", "both"], "route": "expert"}, "uld", "both is several teachers itself"),
        (
            {"teachers": {"first": 1.2, "second": -0.2}},
            "uld",
            "models.both.teachers.first: input should be less than or equal to 1",
        ),
        (
            {"teachers": {"first": "much", "second": 0.3}},
            "uld",
            "models.both.teachers.first: input should be a valid number",
        ),
        (
            {"teachers": "first", "route": "expert"},
            "uld",
            "models.both.teachers: is neither a list of models nor models with",
        ),
        (
            {"teachers": ["first"], "route": "expert"},
            "uld",
            "has fewer than two teachers; fix: name one teacher in the pair",
        ),
        (
            {"teachers": ["first", "second"], "route": ""},
            "uld",
            "models.both.route: string should have at least 1 character",
        ),
        (WEIGHTED, "kd", "kd needs one vocabulary, but teacher 'second'"),
        (ROUTED, "seqkd", "seqkd learns from the responses of one teacher; fix: name one of first, second"),
    ],
)
def test_what_does_not_go_together_is_one_line(plan_of: Planned, together: Content, method: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        plan_of(together, method)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_several_teachers_write_no_text_together_and_judge_the_student_s(plan_of: Planned) -> None:
    with pytest.raises(
        InputError, match="uld learns from the responses of one teacher; fix: name one of first, second"
    ):
        plan_of(ROUTED, text="teacher")
    step = only_training(plan_of(ROUTED, text="student"))
    assert step.training.rollouts is not None
    assert step.training.rollouts.share == 1.0
    assert isinstance(step.data, TaughtBySeveral)
    assert all(part.cache is None for part in step.data.parts)

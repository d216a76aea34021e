"""Planning of distances: with whom each model is compared, what is asked of that teacher, and what is cached for all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.planning.plan import Plan, make_plan
from harness.steps.distances import Distances
from harness.steps.teacher_cache import TeacherCache
from helpers.plan_world import write_folders

URL = "http://127.0.0.1:8000"
Planned = Callable[..., dict[str, Distances]]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path / "folders")


@pytest.fixture
def plan_of(write_matrix: Callable[[Any], Path], tmp_path: Path, folders: Path) -> Callable[..., Plan]:
    """A plan of a matrix whose students learn by `sft`; more models, and more keys."""

    def plan(teacher: str, models: dict[str, Any], **more: Any) -> Plan:
        content = {
            "schema_version": 1,
            "name": "near",
            "data": {"train": {"file": str(folders / "train.jsonl")}},
            "models": {"student": {"path": str(folders / "student")}, **models},
            "pairs": [{"teacher": teacher, "student": "student", "methods": ["sft"]}],
            "training": {"data": "train", "steps": 3},
            "seeds": [0, 1],
            "tasks": {"small_math": {"limit": 3}},
            "evaluation": {"distances": True, "score_teachers": False},
            **more,
        }
        return make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")

    return plan


def steps_of(plan: Plan) -> dict[str, Distances]:
    return {job.id: job.step for job in plan.jobs.values() if isinstance(job.step, Distances)}


def caches_of(plan: Plan) -> list[TeacherCache]:
    return [job.step for job in plan.jobs.values() if isinstance(job.step, TeacherCache)]


def test_one_cache_of_references_serves_all_students_of_a_teacher(plan_of: Callable[..., Plan], folders: Path) -> None:
    plan = plan_of("big", {"big": {"path": str(folders / "teacher")}})
    found = steps_of(plan)
    assert list(found) == [f"distances:big__student/sft/seed{seed}" for seed in (0, 1)]
    (cache,) = caches_of(plan)
    assert all(step.caches == [cache] and step.asked == {"kind": "live"} for step in found.values())
    assert cache.options == {"kind": "hidden_states", "stored_dtype": "same"}
    assert [each.name for each in next(iter(found.values())).loads] == ["student", "big"]


def test_the_kind_is_that_of_the_matrix_at_the_temperature_of_distances(
    plan_of: Callable[..., Plan], folders: Path
) -> None:
    big = {"big": {"path": str(folders / "teacher")}}
    (cache,) = caches_of(plan_of("big", big, teacher_outputs={"kind": "top_k", "k": 4, "temperature": 2.0}))
    assert cache.options == {"kind": "top_k", "k": 4, "temperature": 1.0}
    live = plan_of("big", big, teacher_outputs={"kind": "live"})
    assert caches_of(live) == []
    assert all(step.caches == [] for step in steps_of(live).values())


@pytest.mark.parametrize(
    ("place", "outputs", "asked"),
    [
        ("served", {}, {"kind": "live"}),
        ("completions", {"kind": "top_k", "k": 12}, {"kind": "top_k", "k": 12}),
        ("completions", {}, {"kind": "text_log_probabilities"}),
    ],
)
def test_a_served_teacher_is_asked_for_all_that_its_address_gives(
    plan_of: Callable[..., Plan], folders: Path, place: str, outputs: dict[str, Any], asked: dict[str, Any]
) -> None:
    known = "head" if place == "served" else "tokenizer"
    far = {"far": {place: URL, "model": "m", known: str(folders / "teacher")}}
    plan = plan_of("far", far, teacher_outputs={"temperature": 1.0, **outputs} if "k" in outputs else {})
    for step in steps_of(plan).values():
        assert step.asked == asked
        assert step.reaches == {"far": (URL,)}
        assert [each.name for each in step.loads] == ["student"]
    (cache,) = caches_of(plan)
    assert cache.served is not None
    assert cache.options["kind"] == ("hidden_states" if place == "served" else asked["kind"])


def test_a_teacher_that_gives_text_alone_is_not_asked_and_the_reason_is_kept(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of("far", {"far": {"chat": URL, "model": "m"}})
    assert caches_of(plan) == []
    for step in steps_of(plan).values():
        assert (step.teacher, step.reaches) == (None, {})
        assert step.reason == "far is behind an address and gives text alone"


def test_of_several_teachers_a_student_is_compared_with_each(plan_of: Callable[..., Plan], folders: Path) -> None:
    models = {
        "first": {"path": str(folders / "teacher")},
        "second": {"path": str(folders / "other")},
        "both": {"teachers": {"first": 0.5, "second": 0.5}},
    }
    plan = plan_of("both", models, seeds=[0])
    assert list(steps_of(plan)) == [f"distances:both__student/sft/seed0/{name}" for name in ("first", "second")]
    folders_of = [step.outputs[0].folder for step in steps_of(plan).values()]
    assert folders_of == [
        f"cells/both__student/sft/seed0/distances/{name}/small_math@v2" for name in ("first", "second")
    ]
    assert len(caches_of(plan)) == 2


def test_another_student_task_or_teacher_is_another_measurement(plan_of: Callable[..., Plan], folders: Path) -> None:
    def made(teacher: str = "teacher", **more: Any) -> set[str]:
        plan = plan_of("big", {"big": {"path": str(folders / teacher)}}, seeds=[0], **more)
        return {output.fingerprint.hash for step in steps_of(plan).values() for output in step.outputs}

    first = made()
    assert first == made()
    assert not first & made("other")
    assert not first & made(tasks={"small_math": {"limit": 4}})
    assert not first & made(training={"data": "train", "steps": 4})
    assert not first & made(teacher_outputs={"kind": "live"})
    more = made(tasks={"small_math": {"limit": 3}, "small_instruct": {"limit": 3}})
    assert first < more

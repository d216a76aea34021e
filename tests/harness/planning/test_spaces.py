"""The spaces of methods in plans: every method's trials can be planned, and what cannot is said where it is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.methods import METHODS
from harness.planning.plan import Plan, make_plan
from harness.steps.trial import Trial, TunedTrain

Content = dict[str, Any]
OWN_TEXT = {name for name, kind in METHODS.items() if kind.requires.on_policy == "always"}


@pytest.fixture
def plan_of(tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path) -> Callable[..., Plan]:
    def planned(*, student: str = "same", methods: dict[str, Content], **tuning: Any) -> Plan:
        content = {
            **tiny,
            "pairs": [{"teacher": "teacher", "student": student, "methods": list(methods)}],
            "methods": {name: options for name, options in methods.items() if options},
            "tasks": {"small_math": {"limit": 1}},
            "tuning": {"budget": 8, "limit": 2, **tuning},
        }
        return make_plan(str(write_matrix(content)), output_dir=tmp_path / "run")

    return planned


def trials(plan: Plan) -> list[Trial]:
    return [job.step for job in plan.jobs.values() if isinstance(job.step, Trial)]


def spaces(plan: Plan) -> dict[str, dict[str, str]]:
    """What the records of students of a chosen setting will say of their space, by the name in pairs."""
    steps = [job.step for job in plan.jobs.values() if isinstance(job.step, TunedTrain)]
    return {step.cell.method: step.tuning["space"] for step in steps}


@pytest.mark.parametrize("student", ["same", "cross"])
def test_trials_of_every_method_are_planned(plan_of: Callable[..., Plan], student: str) -> None:
    own = {"rollouts": {"share": 1.0, "max_new_tokens": 8}}
    chosen = {
        name: {"training": own, "teacher_outputs": {"kind": "live"}} if name in OWN_TEXT else {}
        for name, kind in METHODS.items()
        if (student == "same" or kind.requires.vocabulary == "any") and not kind.requires.reference
    }
    plan = plan_of(student=student, methods=chosen)
    found = spaces(plan)
    assert set(found) == {f"{name}+tuned" for name in chosen}
    for name in chosen:
        assert set(found[f"{name}+tuned"]) == set(METHODS[name]().whole_space)
    assert len(trials(plan)) == 8 * len(chosen)
    identities = {trial.fingerprint.hash for trial in trials(plan)}
    assert len(identities) == 8 * len(chosen)


def test_where_a_teacher_gives_distributions_of_one_temperature_that_is_not_tuned(plan_of: Callable[..., Plan]) -> None:
    few = {"teacher_outputs": {"kind": "top_k", "k": 4, "temperature": 2.0}}
    plan = plan_of(methods={"kd": few, "whole": {"method": "kd"}})
    found = spaces(plan)
    assert set(found["whole+tuned"]) - set(found["kd+tuned"]) == {"temperature"}
    fixed = [trial for trial in trials(plan) if (trial.teacher_outputs or {}).get("kind") == "top_k"]
    assert len(fixed) == 8
    assert {trial.method_options["temperature"] for trial in fixed} == {2.0}


def test_options_that_do_not_go_together_are_said_with_their_trial(plan_of: Callable[..., Plan]) -> None:
    weighed = {"gold": {"hybrid_loss": True, "hybrid_matched_weight": 0.5, "hybrid_unmatched_weight": 0.5}}
    with pytest.raises(InputError, match=r"matrix.yaml: tuning.spaces.gold: trial \d+ .*are of the hybrid loss"):
        plan_of(methods=weighed)
    plan = plan_of(methods=weighed, spaces={"gold": {"hybrid_loss": None}})
    assert "hybrid_loss" not in spaces(plan)["gold+tuned"]


def test_what_is_wrong_without_any_tuning_is_said_as_without_it(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(InputError) as caught:
        plan_of(methods={"opd-full": {}})
    assert "opd-full learns from on-policy text alone; fix: " in str(caught.value)
    assert "tuning" not in str(caught.value)


def test_a_share_of_the_student_s_text_is_tuned_where_a_matrix_says_so(plan_of: Callable[..., Plan]) -> None:
    own = {"training": {"rollouts": {"share": 0.5, "max_new_tokens": 8}}, "teacher_outputs": {"kind": "live"}}
    plan = plan_of(methods={"gkd": own}, spaces={"gkd": {"training.rollouts.share": [0.25, 0.5, 1.0]}})
    shares = {trial.training.rollouts.share for trial in trials(plan) if trial.training.rollouts is not None}
    assert shares == {0.25, 0.5, 1.0}


@pytest.mark.parametrize(
    ("tasks", "named", "message"),
    [
        (["humaneval"], None, "tuning: no task of the matrix has validation items; fix: name others, tasks: [mbpp]"),
        (["svamp", "vicuna"], None, "fix: name others, tasks: [gsm8k, dolly]"),
        (["ifeval"], None, "fix: name others, tasks: [TASK, …]"),
        (["humaneval"], ["humaneval"], "tuning.tasks.0: humaneval has no validation items; fix: name mbpp, whose"),
        (["bbh"], ["bbh"], "tuning.tasks.0: bbh has no validation items; fix: name a task that has some"),
    ],
)
def test_tasks_without_validation_items_name_what_stands_in(
    tiny: Content,
    write_matrix: Callable[[Any], Path],
    tmp_path: Path,
    tasks: list[str],
    named: list[str] | None,
    message: str,
) -> None:
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
    tiny["tasks"] = {name: {} for name in tasks}
    tiny["tuning"] = {"budget": 2, **({"tasks": named} if named else {})}
    with pytest.raises(InputError) as caught:
        make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    assert message in str(caught.value)
    assert json.dumps(str(caught.value)).count("\\n") == 0

"""`tuning` of a matrix as jobs: trials, rankings and students are known when planned; what cannot be tuned is refused in a line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dskd.errors import InputError
from harness.costs.work import Device
from harness.planning.plan import Plan, make_plan
from harness.steps.evaluation import Evaluate
from harness.steps.ranking import Ranking
from harness.steps.training import Train
from harness.steps.trial import LaterTrial, Trial, TunedTrain, value_of
from harness.steps.validation import Validate

_DEVICE = Device(peak_tflops=1.0, utilization=1.0)
Content = dict[str, Any]
SAME = {"teacher": "teacher", "student": "same"}
TUNING: Content = {"budget": 6, "halving": True, "limit": 2}


@pytest.fixture
def plan_of(tiny: Content, write_matrix: Callable[[Any], Path], tmp_path: Path) -> Callable[..., Plan]:
    def planned(**keys: Any) -> Plan:
        content = {
            **tiny,
            "pairs": [{**SAME, "methods": ["kd"]}],
            "seeds": [1, 2],
            "tasks": {"small_math": {"limit": 2}},
        }
        return make_plan(str(write_matrix({**content, "tuning": TUNING, **keys})), output_dir=tmp_path / "run")

    return planned


def steps_of(plan: Plan, kind: type[Any]) -> list[Any]:
    return [job.step for job in plan.jobs.values() if type(job.step) is kind]


def test_every_trial_is_a_job_and_the_last_ranking_says_what_is_trained(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    trials, later = steps_of(plan, Trial), steps_of(plan, LaterTrial)
    assert sorted(trial.share for trial in trials) == [0.25] * 6
    assert sorted(trial.share for trial in later) == [0.5, 0.5, 0.5, 1.0, 1.0]
    rankings = sorted(steps_of(plan, Ranking), key=lambda step: step.rung)
    assert [len(step.candidates) for step in rankings] == [6, 3, 2]
    assert [step.keep for step in rankings] == [3, 2, 1]
    students = steps_of(plan, TunedTrain)
    assert [step.folder for step in students] == [f"cells/teacher__same/kd+tuned/seed{seed}/train" for seed in (1, 2)]
    assert {step.ranking.sha256 for step in students} == {rankings[-1].fingerprint.hash}
    assert {step.seed for step in (*trials, *later)} == {1_000_000}
    # The default is trained and tested as well, with the same fresh seeds.
    assert [step.folder for step in steps_of(plan, Train)] == [f"cells/teacher__same/kd/seed{n}/train" for n in (1, 2)]


def test_what_chooses_reads_validation_items_alone(plan_of: Callable[..., Plan]) -> None:
    plan = plan_of()
    chosen_by = steps_of(plan, Validate)
    assert len(chosen_by) == 6 + 3 + 2 + 1  # the teacher's too, by which scores are scaled
    assert {task.task for step in chosen_by for task in step.tasks} == {"small_math:validation"}
    assert {task.task for step in steps_of(plan, Evaluate) for task in step.tasks} == {"small_math"}
    read = {reference.sha256 for step in steps_of(plan, Ranking) for reference in _scores(step)}
    assert read == {step.fingerprint.hash for step in chosen_by}


def _scores(ranking: Ranking) -> list[Any]:
    teacher = [ranking.teacher] if ranking.teacher is not None else []
    return [candidate.scores for candidate in ranking.candidates] + teacher


def test_the_first_trial_is_the_default_and_others_are_points_of_the_methods_space(
    plan_of: Callable[..., Plan],
) -> None:
    spaces = {"kd": {"temperature": {"log": [0.5, 4.0]}, "kd_rate": [0.25, 0.75, 1.0], "training.learning_rate": None}}
    plan = plan_of(tuning={**TUNING, "spaces": spaces})
    default = next(step for step in steps_of(plan, Train) if step.seed == 1)
    trials = steps_of(plan, Trial)
    first = next(trial for trial in trials if "trial 0" in trial.title)
    assert first.method_options == default.method_options
    assert {trial.training.learning_rate for trial in trials} == {default.training.learning_rate}
    assert all(value_of(trial, "kd_rate") in {0.25, 0.5, 0.75, 1.0} for trial in trials)
    assert len({value_of(trial, "temperature") for trial in trials}) == 6
    assert all(0.5 <= value_of(trial, "temperature") <= 4.0 for trial in trials)


def test_other_seeds_and_more_tasks_leave_the_trials_as_they_are(plan_of: Callable[..., Plan]) -> None:
    """So that what was tuned once is not tuned again for another table."""

    def identities(plan: Plan) -> set[str]:
        return {step.fingerprint.hash for step in (*steps_of(plan, Trial), *steps_of(plan, LaterTrial))}

    before = identities(plan_of())
    assert identities(plan_of(seeds=[7, 8, 9])) == before
    named = {**TUNING, "tasks": ["small_math"]}
    assert identities(plan_of(tuning=named, tasks={"small_math": {"limit": 2}, "small_instruct": {}})) == before
    assert not identities(plan_of(tuning={**TUNING, "seed": 1})) & before


def test_tuning_changes_no_identity_of_the_default(plan_of: Callable[..., Plan]) -> None:
    tuned = {step.fingerprint.hash for step in steps_of(plan_of(), Train)}
    assert tuned == {step.fingerprint.hash for step in steps_of(plan_of(tuning=None), Train)}


def test_a_budget_of_tokens_or_seconds_is_the_same_for_all_and_gives_dear_methods_fewer_trials(
    plan_of: Callable[..., Plan],
) -> None:
    methods = {"pairs": [{**SAME, "methods": ["sft", "dskd-v2"]}], "teacher_outputs": {"kind": "live"}}

    def trials(**budget: Any) -> dict[str, int]:
        plan = plan_of(tuning={"budget": budget, "limit": 2}, **methods)
        found = [step.method for step in steps_of(plan, Trial)]
        return {name: found.count(name) for name in ("sft", "dskd-v2")}

    (work,) = next(step for step in steps_of(plan_of(**methods), Train) if step.method == "sft").estimate(_DEVICE)
    by_tokens = trials(tokens=work.tokens * 5.5)
    assert by_tokens == {"sft": 5, "dskd-v2": 5}
    by_seconds = trials(seconds=work.gpu_hours * 3600 * 9.5, tflops=1.0)
    assert by_seconds["sft"] == 9
    assert 1 <= by_seconds["dskd-v2"] < 9


def test_the_saved_matrix_plans_the_same_jobs(plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    for default in (True, False):
        plan = plan_of(tuning={**TUNING, "default": default, "methods": ["kd"]})
        assert plan.matrix is not None
        (tmp_path / "again.yaml").write_text(yaml.safe_dump(plan.matrix.resolved, sort_keys=False))
        again = make_plan(str(tmp_path / "again.yaml"), output_dir=tmp_path / "run")
        assert {key: job.step.fingerprint.hash for key, job in again.jobs.items()} == {
            key: job.step.fingerprint.hash for key, job in plan.jobs.items()
        }
        assert any("kd+tuned" in key for key in plan.jobs)
        assert any("/kd/" in key for key in plan.jobs) == default


def test_parts_are_chosen_by_the_axis_setting(plan_of: Callable[..., Plan], tmp_path: Path) -> None:
    plan_of()
    path = str(tmp_path / "matrix.yaml")
    default = make_plan(path, output_dir=tmp_path / "run", only=["setting=default"])
    assert not steps_of(default, Trial)
    assert steps_of(default, Train)
    tuned = make_plan(path, output_dir=tmp_path / "run", only=["setting=tuned", "seed=2"])
    assert [step.seed for step in steps_of(tuned, TunedTrain)] == [2]
    assert not steps_of(tuned, Train)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tuning": {"budget": {"trials": 3, "tokens": 5}}}, "tuning.budget: give one of trials, tokens and seconds"),
        ({"tuning": {"budget": 0}}, r"tuning\.budget\.trials: .*greater than or equal to 1"),
        (
            {"tuning": {"budget": 3, "methods": ["kdd"]}},
            r"tuning\.methods: no pair has a method 'kdd'.*kd",
        ),
        ({"tuning": {"budget": 3, "haling": True}}, r"tuning\.haling: unknown key.*halving"),
        (
            {"tuning": {"budget": 3, "spaces": {"kd": {"temprature": [1.0]}}}},
            r"tuning\.spaces\.kd\.temprature: kd has no such option.*temperature",
        ),
        (
            {"tuning": {"budget": 3, "spaces": {"kd": {"temperature": {"log": [4, 1]}}}}},
            r"tuning\.spaces\.kd\.temperature: .*4 to 1 is no range",
        ),
        (
            {"tuning": {"budget": 3, "spaces": {"kd": {"temperature": 3}}}},
            r"tuning\.spaces\.kd\.temperature: is no range; fix: write",
        ),
        (
            {"tuning": {"budget": 3, "spaces": {"kd": {"training.steps": [1, 2]}}}},
            r"tuning\.spaces\.kd\.training\.steps: is the same for all trials",
        ),
        (
            {"tuning": {"budget": 3, "spaces": {"kd": {"kd_rate": [2.0]}}}},
            r"tuning\.spaces\.kd: trial 1 has .*kd_rate 2\.0.*less than or equal to 1",
        ),
        ({"tuning": {"budget": 3, "tasks": ["vicuna"]}}, r"tuning\.tasks\.0: vicuna has no validation items"),
        (
            {"tuning": {"budget": 3, "tasks": ["small_math:validation"]}},
            r"tuning\.tasks: small_math:validation: validation items are taken anyway; fix: write small_math",
        ),
        ({"tuning": {"budget": 3, "limit": 0}}, r"tuning\.limit"),
        ({"tuning": {"budget": 3, "limit": {"small_math": 0}}}, r"tuning\.limit\.small_math"),
        (
            {"tuning": {"budget": 3, "limit": {"small_mth": 5}}},
            r"tuning\.limit\.small_mth: settings are not chosen by small_mth; did you mean 'small_math'",
        ),
        (
            {"tasks": {"vicuna": {}}},
            r"tuning: no task of the matrix has validation items; fix: name others, tasks: \[dolly\]",
        ),
        ({"seeds": [1, 1_000_000]}, "seeds: 1000000 is the seed of the trials; fix: take another"),
        ({"axes": {"setting": {"a": {"kd_rate": 0.3}}}}, r"axes\.setting: is what tuning calls its own axis"),
    ],
)
def test_what_cannot_be_tuned_is_refused_in_a_line(plan_of: Callable[..., Plan], keys: Content, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        plan_of(**keys)
    assert "\n" not in str(refused.value)

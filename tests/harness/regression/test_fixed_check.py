"""Verdicts on what the code does with fixed models: what rounding explains, what nothing but the code does, what is missing."""

from __future__ import annotations

from typing import Any

from harness.regression.check import Verdict
from harness.regression.fixed.check import FixedVerdict, check_fixed
from harness.regression.fixed.records import Behaviour, FirstSteps, FixedBaseline, Outputs, Step

OUTPUTS = {"0": ("aa", (5, 6, 7)), "1": ("bb", (5, 8)), "2": ("cc", (9,)), "3": ("dd", (4, 4))}
SAMPLED = ((1, 2), (3, 4), (5, 6))
PROVENANCE = {"reason": "first", "date": "2026-01-01", "matrix": None, "commit": None, "dirty": None, "harness": None}


def behaviour(
    outputs: dict[str, Any] | None = None,
    values: tuple[dict[str, float], ...] = ({"loss": 2.0, "grad_norm": 0.5}, {"loss": 1.5, "grad_norm": 0.25}),
    sampled: tuple[Any, ...] = ((), ()),
    moved: float = 0.1,
    scores: dict[str, float | None] | None = None,
    **others: Any,
) -> Behaviour:
    steps = tuple(Step(values=each, sampled=text) for each, text in zip(values, sampled, strict=True))
    return Behaviour(
        outputs={"same/small_math": Outputs(prompts="p", items=OUTPUTS | (outputs or {}))},
        first_steps={"same/kd": FirstSteps(tokens=10, moved=moved, steps=steps)},
        scores={"small_math": {"0/wrong": {"numeric": 0.0, **(scores or {})}}},
        **others,
    )


def check(now: Behaviour, before: Behaviour | None = None, apart: float = 0.5) -> dict[str, FixedVerdict]:
    """The verdicts by the first word of their cells, where the logits of any two tokens are `apart`."""
    baseline = FixedBaseline.model_validate(
        {"provenance": PROVENANCE, "environment": {}, "files": {}, "behaviour": (before or behaviour()).model_dump()}
    )
    report = check_fixed(baseline, now, lambda *_: apart)
    return {cell.name.split()[0]: cell for cell in report.cells}


def test_what_is_the_same_passes() -> None:
    assert [(cell.verdict, cell.reasons) for cell in check(behaviour()).values()] == [("pass", [])] * 3


def test_outputs_that_part_between_two_near_logits_are_no_change() -> None:
    now = behaviour({"0": ("ee", (5, 7, 7, 7))})
    assert check(now, apart=1e-5)["outputs"].verdict == "pass"
    assert check(now, apart=1e-5)["outputs"].ties == 1
    changed = check(now, apart=2e-3)["outputs"]
    assert (changed.verdict, changed.changed) == ("regress", 1)
    assert "0: token 1, logits 0.002 apart" in changed.reasons[0]


def test_the_gap_is_asked_where_the_outputs_part() -> None:
    asked = []
    baseline = FixedBaseline.model_validate(
        {"provenance": PROVENANCE, "environment": {}, "files": {}, "behaviour": behaviour().model_dump()}
    )
    check_fixed(baseline, behaviour({"0": ("ee", (5, 6, 1))}), lambda *given: asked.append(given) or 0.0)
    assert asked == [("same/small_math", "0", (5, 6), 7, 1)]


def test_too_many_near_ties_are_inconclusive() -> None:
    now = behaviour({"0": ("ee", (1,)), "1": ("ff", (1,))})
    assert check(now, apart=1e-5)["outputs"].verdict == "inconclusive"


def test_an_output_that_ends_elsewhere_or_is_decoded_otherwise_is_a_change() -> None:
    for other in (("aa", (5, 6)), ("aa", (5, 6, 7, 7)), ("zz", (5, 6, 7))):
        assert check(behaviour({"0": other}), apart=0.0)["outputs"].verdict == "regress"


def test_other_prompts_are_a_change_even_with_more_items() -> None:
    now = behaviour()
    now.outputs["same/small_math"] = Outputs(prompts="q", items=OUTPUTS)
    assert check(now)["outputs"].reasons == ["the prompts or their tokens changed"]


def test_first_steps_are_compared_within_rounding() -> None:
    def verdict(loss: float, **others: Any) -> Verdict:
        values = ({"loss": 2.0, "grad_norm": 0.5}, {"loss": loss, "grad_norm": 0.25})
        return check(behaviour(values=values, **others))["first"].verdict

    assert verdict(1.50001) == "pass"
    assert verdict(1.501) == "regress"
    assert verdict(float("nan")) == "regress"
    assert verdict(1.5, moved=0.1001) == "regress"


def test_a_value_that_is_new_or_gone_is_a_change() -> None:
    for first in ({"loss": 2.0}, {"loss": 2.0, "grad_norm": 0.5, "penalty": 0.0}):
        now = behaviour(values=(first, {"loss": 1.5, "grad_norm": 0.25}))
        assert check(now)["first"].verdict == "regress"


def test_one_sampled_response_may_part_and_two_may_not() -> None:
    one, two = ((1, 2), (3, 4), (5, 9)), ((1, 2), (3, 9), (5, 9))
    values = ({"loss": 2.0, "grad_norm": 0.5}, {"loss": 3.0, "grad_norm": 9.0})
    before = behaviour(sampled=(SAMPLED, SAMPLED))

    def first(sampled: tuple[Any, ...], **others: Any) -> FixedVerdict:
        return check(behaviour(values=values, sampled=sampled, **others), before)["first"]

    assert first((SAMPLED, one)).verdict == "pass"
    assert "step 2" in first((SAMPLED, one)).reasons[0]
    assert first((one, SAMPLED)).verdict == "inconclusive"
    assert first((SAMPLED, two)).verdict == "regress"
    assert first((SAMPLED, one), moved=0.2).verdict == "regress"
    assert first((SAMPLED, SAMPLED)).verdict == "regress"


def test_a_score_that_changes_is_a_regression_and_one_that_is_lost_leaves_no_verdict() -> None:
    changed = check(behaviour(scores={"numeric": 100.0}))["scores"]
    assert (changed.verdict, changed.largest) == ("regress", 100.0)
    assert "0/wrong numeric 0.0 -> 100.0" in changed.reasons[0]
    assert check(behaviour(scores={"numeric": None}))["scores"].verdict == "incomplete"


def test_a_method_that_fails_is_a_regression_and_one_that_is_gone_leaves_no_verdict() -> None:
    now = behaviour(failed={"same/kd": "the loss is nan"})
    assert check(now)["first"].reasons == ["failed: the loss is nan"]
    now = behaviour()
    now.first_steps = {}
    assert check(now)["first"].verdict == "incomplete"


def test_what_the_baseline_does_not_have_is_only_noted() -> None:
    now = behaviour()
    now.first_steps["same/new"] = now.first_steps["same/kd"]
    baseline = FixedBaseline.model_validate(
        {"provenance": PROVENANCE, "environment": {}, "files": {}, "behaviour": behaviour().model_dump()}
    )
    report = check_fixed(baseline, now, lambda *_: 0.0)
    assert report.verdict == "pass"
    assert "not checked: same/new" in report.notes[0]

"""Answers where the truth is known: planted methods, from records alone."""

from __future__ import annotations

from typing import Any

import pytest

from harness.claims.answers import answer_claims
from harness.claims.rows import ALPHA, AnsweredClaim
from harness.protocols import PROTOCOLS
from harness.results.item_scores import Results
from helpers.planted_claims import claims, planted

BOTH = {"student": True, "other-student": False}


def answered(results: Results, **claim: Any) -> AnsweredClaim:
    return answer_claims(claims(one={"tuned": False, **claim}), results).claims[0]


@pytest.fixture(scope="module")
def results() -> Results:
    return planted({"high": 70, "low": 45, "level": 46})


def test_a_claim_that_is_true_holds_with_its_difference_and_interval(results: Results) -> None:
    claim = answered(results, better="high", than="low")
    assert claim.answer == "holds"
    (test,) = claim.tests
    assert test.difference == pytest.approx(25, abs=4)
    assert test.ci95 is not None
    assert 0 < test.ci95[0] < test.difference < test.ci95[1]
    assert (test.seeds, test.items, [task.task for task in test.tasks]) == ((5, 5), 200, ["code", "math"])
    assert test.difference == pytest.approx(sum(task.difference for task in test.tasks) / 2, abs=1e-3)


def test_a_claim_whose_opposite_is_true_fails(results: Results) -> None:
    assert answered(results, better="low", than="high").answer == "fails"


def test_what_is_not_significant_is_undecided_and_says_how_many_seeds_would_tell(results: Results) -> None:
    claim = answered(results, better="level", than="low")
    assert claim.answer == "undecided"
    (test,) = claim.tests
    assert test.p_holm is not None
    assert test.p_holm >= ALPHA
    assert test.seeds_needed is None or test.seeds_needed > 5
    assert "seeds of each" in test.reason


def test_against_several_it_holds_only_against_each_and_fails_against_any(results: Results) -> None:
    mixed = planted({"high": 70, "low": 45, "level": 46, "top": 90})
    assert answered(mixed, better="high", than=["low", "level"]).answer == "holds"
    assert answered(mixed, better="level", than=["low", "high"]).answer == "fails"
    claim = answered(mixed, better="high", than=["low", "top"])
    assert (claim.answer, [test.answer for test in claim.tests]) == ("fails", ["holds", "fails"])
    assert answered(planted({"a": 70, "b": 45, "c": 69}), better="a", than=["b", "c"]).answer == "undecided"


def test_a_margin_asks_for_more_than_a_difference(results: Results) -> None:
    assert answered(results, better="high", than="low", margin=10).answer == "holds"
    assert answered(results, better="high", than="low", margin=25).answer == "undecided"
    assert answered(results, better="high", than="low", margin=45).answer == "fails"


@pytest.mark.parametrize(
    ("margin", "than", "answer"), [(10, "level", "holds"), (1, "level", "undecided"), (10, "high", "fails")]
)
def test_as_good_is_decided_by_two_one_sided_tests(results: Results, margin: float, than: str, answer: str) -> None:
    claim = answered(results, better="low", than=than, direction="as-good", margin=margin)
    assert claim.answer == answer
    (test,) = claim.tests
    assert test.ci_holm is not None
    inside = -margin < test.ci_holm[0] < test.ci_holm[1] < margin
    assert inside == (answer == "holds")


def test_a_method_that_is_better_by_its_default_alone_is_not_better_tuned() -> None:
    mixed = planted({"new": 70, "old": 45, "new+tuned": 71, "old+tuned": 71.5, "late": 70, "late+tuned": 55})
    assert answered(mixed, better="new", than="old").answer == "holds"
    assert answered(mixed, better="new", than="old", tuned=True).answer == "undecided"
    assert answered(mixed, better="late", than="old").answer == "holds"
    assert answered(mixed, better="late", than="old", tuned=True).answer == "fails"


def test_settings_that_were_tuned_on_other_terms_decide_nothing() -> None:
    unlike = planted({"new+tuned": 80, "old+tuned": 45}, budgets={"new+tuned": {"trials": 64}})
    claim = answered(unlike, better="new", than="old", tuned=True)
    assert claim.answer == "undecided"
    assert claim.tests[0].reason == (
        'tuned on other terms: new+tuned {"trials": 64} on code, old+tuned {"trials": 8} on code'
    )
    assert claim.tests[0].difference == pytest.approx(35, abs=5)
    assert claim.tests[0].p_value is None
    untold = planted({"new+tuned": 80, "old+tuned": 45})
    for number, record in enumerate(untold.records):
        if record.tuning is not None and record.cell.method == "old+tuned":
            untold.records[number] = record.model_copy(update={"tuning": None})
    claim = answered(untold, better="new", than="old", tuned=True)
    assert (claim.answer, claim.tests[0].reason) == (
        "undecided",
        "the records of old+tuned do not say how it was tuned",
    )


def test_too_few_seeds_decide_nothing_however_large_the_difference() -> None:
    claim = answered(planted({"high": 90, "low": 10}, seeds=(1, 2, 3)), better="high", than="low")
    assert claim.answer == "undecided"
    (test,) = claim.tests
    assert (test.seeds_needed, test.reason) == (4, "3 seeds of a method; at least 4 of each are needed")
    assert test.p_value is None


def test_missing_records_are_named_with_the_command_that_makes_them(results: Results) -> None:
    claim = answered(results, better="high", than=["low", "kd"])
    assert (claim.answer, claim.missing) == ("no records", ["teacher -> student: kd on code, math"])
    assert [test.answer for test in claim.tests] == ["holds"]
    assert claim.command == (
        "harness run --matrix MATRIX.yaml --only teacher=teacher --only student=student --only method=kd"
    )
    assert claim.matrix == "MATRIX.yaml: one with kd in its pairs"
    slip = answered(planted({"high-on-policy": 80, "low": 40}), better="high-on-polciy", than="low")
    assert slip.missing == ["teacher -> student: high-on-polciy on code, math; did you mean 'high-on-policy'?"]


def test_records_that_are_missing_hide_no_failure(results: Results) -> None:
    claim = answered(results, better="low", than=["high", "kd"])
    assert (claim.answer, claim.missing) == ("fails", ["teacher -> student: kd on code, math"])


def test_a_task_without_records_and_a_failed_seed_are_missing() -> None:
    holes = planted({"high": 80, "low": 40}, leave_out=[("low", "math")])
    assert answered(holes, better="high", than="low").missing == ["teacher -> student: low on math"]
    assert answered(holes, better="high", than="low", tasks=["code"]).answer == "holds"
    failed = planted({"high": 80, "low": 40})
    number = next(n for n, r in enumerate(failed.records) if r.cell.method == "low" and r.cell.task == "code")
    failed.records[number] = failed.records[number].model_copy(
        update={"status": "failed", "error": "x", "metrics": {}, "n": None}
    )
    claim = answered(failed, better="high", than="low")
    assert (claim.answer, claim.missing) == ("no records", ["teacher -> student: low on code (seed 1 failed)"])


def test_the_command_names_a_shipped_matrix_that_has_the_cells() -> None:
    found = planted({"sft": 50}, students={"small-student": True})
    renamed = [
        record.model_copy(update={"cell": record.cell.model_copy(update={"teacher": "small-teacher"})})
        for record in found.records
    ]
    items = {
        record.cell.key: found.items[old.cell.key]
        for old, record in zip(found.records, renamed, strict=True)
        if old.cell.key in found.items
    }
    claim = answered(Results(renamed, items, []), better="opd-top-k", than="opd", pairs="matched")
    assert claim.command.startswith(
        "harness run --matrix leaderboard --only teacher=small-teacher --only student=small-student"
    )
    assert claim.matrix == ""


def test_pairs_are_those_of_one_or_of_two_vocabularies_or_listed() -> None:
    both = planted({"high": 80, "low": 40}, students=BOTH)

    def students(**claim: Any) -> list[str]:
        return [test.student for test in answered(both, better="high", than="low", **claim).tests]

    assert students(pairs="matched") == ["student"]
    assert students(pairs="mismatched") == ["other-student"]
    assert students(pairs="all") == ["other-student", "student"]
    assert students(pairs=["teacher/student"]) == ["student"]
    assert answered(both, better="high", than="low", pairs=["teacher/nobody"]).answer == "no records"
    none = answered(planted({"high": 80, "low": 40}), better="high", than="low", pairs="mismatched")
    assert (none.answer, none.missing) == (
        "no records",
        ["no pair of this kind: default settings; two vocabularies; all tasks"],
    )


def test_one_pair_where_it_fails_is_enough() -> None:
    good, bad = planted({"a": 80, "b": 40}), planted({"a": 40, "b": 80}, students={"other-student": True})
    both = Results([*good.records, *bad.records], {**good.items, **bad.items}, [])
    assert answered(both, better="a", than="b").answer == "fails"
    assert answered(both, better="a", than="b", pairs=["teacher/student"]).answer == "holds"


def test_training_sets_are_chosen_by_the_names_of_students() -> None:
    sets = planted({"high": 80, "low": 40}, students={"student": True, "student+clean": True, "student+none": True})

    def students(data: str | list[str]) -> list[str]:
        return [test.student for test in answered(sets, better="high", than="low", data=data).tests]

    assert students("clean") == ["student+clean"]
    assert students(["default", "none"]) == ["student", "student+none"]


def test_where_a_lower_score_is_better_the_sign_turns() -> None:
    turned = planted({"high": 70, "low": 45}, lower_is_better=True)
    assert answered(turned, better="low", than="high").answer == "holds"


def test_a_task_of_several_protocols_is_the_greedy_one_unless_named() -> None:
    greedy, drawn = (
        planted({"high": 80, "low": 40}),
        planted({"high": 40, "low": 80}, protocol=PROTOCOLS["minillm-sampling"]),
    )
    both = Results([*greedy.records, *drawn.records], {**greedy.items, **drawn.items}, [])
    assert answered(both, better="high", than="low").answer == "holds"
    assert answered(both, better="high", than="low", tasks=["code [minillm-sampling]"]).answer == "fails"


def test_the_correction_is_over_all_tests_of_the_file_and_the_same_test_counts_once() -> None:
    # Alone this difference is significant.
    close = planted({"new": 55.5, "old": 50, **{f"m{k}": 50 for k in range(12)}})
    question = {"better": "new", "than": "old", "tuned": False}
    alone = answer_claims(claims(one=question), close)
    p_value = alone.claims[0].tests[0].p_value
    assert p_value is not None
    assert 0.005 < p_value < ALPHA
    assert alone.claims[0].answer == "holds"
    twice = answer_claims(claims(one=question, two=question), close)
    assert (twice.number, [claim.answer for claim in twice.claims]) == (1, ["holds", "holds"])
    others = {f"m{k}": {"better": f"m{k}", "than": "old", "tuned": False} for k in range(12)}
    many = answer_claims(claims(one=question, **others), close)
    test = many.claims[0].tests[0]
    assert (many.number, many.claims[0].answer, test.p_value) == (13, "undecided", p_value)
    assert test.p_holm is not None
    assert test.p_holm >= ALPHA
    assert test.ci_holm is not None
    assert test.ci_holm[0] < 0 < test.ci_holm[1]


def test_seeds_of_unlike_settings_are_noted() -> None:
    mixed = planted({"high": 80, "low": 40})
    number = next(n for n, r in enumerate(mixed.records) if r.cell.method == "low" and r.cell.task == "code")
    record = mixed.records[number]
    changed = record.identity.of({**record.identity.parts, "steps": 2})
    mixed.records[number] = record.model_copy(update={"identity": changed})
    notes = answer_claims(claims(one={"better": "high", "than": "low", "tuned": False}), mixed).notes
    assert any("do not average" in note for note in notes)

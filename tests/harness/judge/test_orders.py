"""Two orders of a pair to one outcome, the judge's lean to a position, and agreement."""

from __future__ import annotations

import itertools

import pytest
from scipy.stats import binomtest

from harness.judge.agreement import agreement
from harness.judge.orders import combine, position


def test_two_orders_that_agree_are_the_outcome_and_any_other_two_a_tie() -> None:
    for first, second in itertools.product(("A", "B", "tie"), repeat=2):
        outcome = combine(first, second)  # type: ignore[arg-type]
        assert outcome.winner == (first if first == second else "tie")
        kinds = {True: "agree", False: "half" if "tie" in (first, second) else "reversed"}
        assert outcome.consistency == kinds[first == second]
    assert [combine(each, each).preference for each in ("A", "tie", "B")] == [1.0, 0.5, 0.0]  # type: ignore[arg-type]


@pytest.mark.parametrize("other", ["A", "B", "tie", None])
def test_an_unreadable_verdict_leaves_its_pair_without_outcome(other: str | None) -> None:
    for both in ((None, other), (other, None)):
        outcome = combine(*both)  # type: ignore[arg-type]
        assert (outcome.winner, outcome.consistency, outcome.preference) == (None, None, None)


def test_a_judge_that_always_takes_the_first_is_seen() -> None:
    pairs = [("1", "1")] * 9 + [("2", "2")]
    found = position([verdict for pair in pairs for verdict in pair], pairs)  # type: ignore[arg-type]
    assert (found["first"], found["second"], found["first_share"]) == (18, 2, 90.0)
    assert found["p"] == pytest.approx(binomtest(9, 10).pvalue)


def test_a_judge_that_is_right_in_both_orders_has_no_lean() -> None:
    pairs = [("1", "2"), ("2", "1"), ("1", "2"), ("tie", "tie"), (None, "1")]
    found = position([verdict for pair in pairs for verdict in pair], pairs)  # type: ignore[arg-type]
    assert (found["first"], found["second"], found["tie"]) == (4, 3, 2)
    assert (found["first_in_both_orders"], found["second_in_both_orders"], found["p"]) == (0, 0, None)


def test_kappa_is_what_the_formula_gives_by_hand() -> None:
    pairs = [("A", "A")] * 20 + [("A", "B")] * 5 + [("B", "A")] * 10 + [("B", "B")] * 15
    found = agreement([*pairs, ("A", None)], ("A", "tie", "B"))
    # Equal: 35 of 50. By chance: .5 · .6 + .5 · .4 = .5.
    assert (found["n"], found["unreadable"], found["share"]) == (50, 1, 70.0)
    assert found["kappa"] == pytest.approx((0.7 - 0.5) / (1 - 0.5))
    low, high = found["kappa_ci95"]
    assert 0.1 < low < found["kappa"] < high < 0.7


def test_agreement_without_spread_has_a_share_but_no_kappa() -> None:
    assert agreement([("A", "A")] * 5, ("A", "tie", "B")) == {
        "n": 5, "share": 100.0, "kappa": None, "kappa_ci95": None, "unreadable": 0,
    }  # fmt: skip
    assert agreement([(None, None)], ("A", "tie", "B"))["share"] is None
    assert agreement([], ("A", "tie", "B"))["n"] == 0

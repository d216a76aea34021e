"""What judgements come to, without any server."""

from __future__ import annotations

from typing import Any

import pytest

from harness.cli._judge_table import lines, rows, warnings
from harness.judge.pairs import Pair, questions
from harness.judge.summary import summarise
from harness.judge.verdict import winner_of


def judged(verdicts: list[tuple[str | None, str | None]], repeats: int = 0, **changes: Any) -> dict[str, Any]:
    """The summary of pairs with these verdicts in both orders, asked one after another for two seconds each."""
    pairs = [Pair(str(n), 0, "q", "a" * (10 + n % 3), "b" * 11) for n in range(len(verdicts))]
    asked = questions(pairs, repeats, seed=0)
    judgements = {}
    for number, question in enumerate(asked):
        verdict: Any = verdicts[int(question.pair.id)][("AB", "BA").index(question.order)]
        judgements[question.key] = {
            "verdict": verdict,
            "winner": winner_of(verdict, question.order),
            "finish_reason": "stop",
            "prompt_tokens": 10,
            "completion_tokens": 2,
            "began": 100.0 + number,
            "seconds": 2.0,
            **changes,
        }
    return summarise(pairs, asked, judgements)


def test_a_judge_that_takes_the_first_answer_says_nothing_and_is_warned_of() -> None:
    summary = judged([("1", "1")] * 12)
    assert summary["win_rate"]["value"] == 50.0
    assert summary["position"]["p"] < 0.001
    assert any("prefers a position" in warning for warning in warnings(summary))
    assert not any("prefers a position" in warning for warning in warnings(judged([("1", "2"), ("2", "1")] * 6)))


def test_a_small_p_keeps_its_digits() -> None:
    assert judged([("1", "2")] * 60)["win_rate"]["p"] == pytest.approx(2 / 2**60, rel=1e-4)


def test_pairs_with_an_unreadable_verdict_are_in_no_rate() -> None:
    summary = judged([("1", "2")] * 3 + [("2", "1")] + [("1", None), (None, None)])
    assert summary["win_rate"]["value"] == 75.0
    assert summary["win_rate"]["prompts"] == 4
    assert summary["outcomes"] == {
        "pairs": 6, "A": 3, "tie": 0, "B": 1, "unreadable": 2, "inconsistent": 0, "reversed": 0,
    }  # fmt: skip
    assert (summary["orders"]["n"], summary["orders"]["unreadable"]) == (4, 2)
    assert summary["unreadable"]["verdicts"] == 3
    assert any("2 of 6 pairs" in warning for warning in warnings(summary))


def test_a_half_and_a_reversed_pair_are_ties_and_told_one_from_another() -> None:
    summary = judged([("1", "1"), ("1", "tie"), ("tie", "tie"), ("1", "2")])
    assert summary["outcomes"] | {"pairs": 4} == {
        "pairs": 4, "A": 1, "tie": 3, "B": 0, "unreadable": 0, "inconsistent": 2, "reversed": 1,
    }  # fmt: skip
    assert summary["orders"]["share"] == 50.0


def test_cost_counts_the_time_in_which_something_was_open() -> None:
    summary = judged([("1", "2")] * 3, repeats=1)
    assert summary["cost"] == {
        "requests": 8, "prompt_tokens": 80, "completion_tokens": 16, "wall_seconds": 9.0, "request_seconds": 16.0,
    }  # fmt: skip
    assert judged([("1", "2")], prompt_tokens=None)["cost"]["prompt_tokens"] is None
    assert "unknown prompt" in "\n".join(lines(judged([("1", "2")], prompt_tokens=None)))


def test_every_number_has_a_place_in_the_table() -> None:
    table = rows(judged([("1", "2"), ("2", "1"), ("tie", "tie")] * 4, repeats=3))
    names = [row[0] for row in table]
    assert len(names) == len(set(names)) == 10
    assert table[0][1] == table[0][1] == "50.0"
    assert table[2][1:] == ("11.0", "", "12 pairs")

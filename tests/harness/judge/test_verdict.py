"""Reading a judge's reply: a strict last line, after its reasoning, and nothing guessed."""

from __future__ import annotations

import time

import pytest

from harness.judge.verdict import CHOICES, read_verdict, winner_of

READABLE = {
    "Verdict: 1": "1",
    "Verdict: 2": "2",
    "Verdict: tie": "tie",
    "Both are fine.\n\nVerdict: tie\n\n": "tie",
    "The first is right.\n**Verdict: 1**": "1",
    "**Verdict:** 2": "2",
    "verdict: TIE.": "tie",
    "### Verdict: 2": "2",
    "Answer 1 ends with\nVerdict: 1\nwhich is an attempt to influence me.\nVerdict: 2": "2",
    "<think>Maybe 2.\nVerdict: 2\nNo.</think>\n\nVerdict: 1": "1",
    "Maybe 2.\nVerdict: 2\n</think>\nVerdict: 1": "1",  # the template opened the reasoning
    "[THINK]hm[/THINK]The second.\nVerdict: 2": "2",
    "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Verdict: 1": "1",
    "Answer 2 writes `</think>` and is wrong.\nVerdict: 1": "1",
}
UNREADABLE = [
    "",
    "\n",
    "1",
    "A",
    "Verdict: A",
    "Verdict: 3",
    "Verdict: 1 or 2",
    "Verdict: 1, but only just",
    "My verdict is 1",
    "Verdict: neither",
    "The verdict: 1",
    "Verdict: 1\nNo, wait, answer 2 is the better one.",
    "Verdict:\n1",
    "Verdict 1",
    "Verdict: 12",
    "Verdict: １",
    "<think>Verdict: 1",
    "<think>I lean to the first.\nVerdict: 1",
    "<think>a</think>\n<think>b\nVerdict: 2",
]


@pytest.mark.parametrize(("reply", "verdict"), READABLE.items())
def test_a_verdict_is_the_last_line_after_the_reasoning(reply: str, verdict: str) -> None:
    assert read_verdict(reply, "stop") == verdict


@pytest.mark.parametrize("reply", UNREADABLE)
def test_anything_else_is_no_verdict(reply: str) -> None:
    assert read_verdict(reply, "stop") is None


@pytest.mark.parametrize("reply", READABLE)
def test_a_reply_that_was_cut_off_has_no_verdict_whatever_it_ends_with(reply: str) -> None:
    assert read_verdict(reply, "length") is None


def test_what_a_server_may_answer_with_choices_is_readable() -> None:
    assert [read_verdict(choice, "stop") for choice in CHOICES] == ["1", "2", "tie"]


def test_a_winner_follows_the_order_in_which_the_answers_were_shown() -> None:
    assert [winner_of("1", "AB"), winner_of("1", "BA"), winner_of("2", "AB"), winner_of("2", "BA")] == [
        "A",
        "B",
        "B",
        "A",
    ]
    assert [winner_of("tie", "BA"), winner_of(None, "AB")] == ["tie", None]


@pytest.mark.parametrize(
    "reply",
    [
        "*" * 1_000_000 + "Verdict: 1",
        "Verdict:" * 200_000,
        "<think>" * 50_000,
        "\n" * 1_000_000,
        "`</think>`\n" * 30_000,
    ],
    ids=["stars", "words", "openings", "lines", "closings"],
)
def test_long_hostile_replies_take_no_time(reply: str) -> None:
    start = time.perf_counter()
    assert read_verdict(reply, "stop") is None
    assert time.perf_counter() - start < 5

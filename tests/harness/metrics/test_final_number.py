"""Which number of an answer is the final one: the table of answers, what has no number, and hostile text."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from harness.metrics.final_number import RULE, WAYS, find_final_number
from harness.metrics.number_text import numbers
from harness.metrics.numbers import CHAIN_OF_THOUGHT, MARKED, Ending, score_number, value
from harness.metrics.plain_text import plain
from helpers.answer_forms import NUMBER_FORMS
from helpers.number_answers import NUMBER_ANSWERS
from helpers.paths import ROOT


def find_number(answer: str, ending: Ending = MARKED) -> str | None:
    found = find_final_number(answer, ending.first)
    return None if found is None else found.text


@pytest.mark.parametrize(("number", "answer"), NUMBER_ANSWERS)
def test_the_number_of_an_answer_is_found(number: str | None, answer: str) -> None:
    assert find_number(answer) == number


@pytest.mark.parametrize(("number", "answer"), NUMBER_ANSWERS)
def test_every_other_number_of_an_answer_is_wrong(number: str | None, answer: str) -> None:
    right = None if number is None else value(number)
    others = {found.text for found in numbers(plain(answer)) if found.value != right} | {"-1000001"}
    for other in others:
        assert score_number(f"#### {other}", answer, ()).scores["numeric"] == 0.0, other


def test_the_table_is_large_and_has_no_answer_twice() -> None:
    answers = [answer for _, answer in NUMBER_ANSWERS]
    assert len(set(answers)) == len(answers) >= 90
    assert len(NUMBER_FORMS) >= 80


def test_the_page_describes_the_rule_of_this_version() -> None:
    page = (ROOT / "docs" / "answers.md").read_text()
    assert f"\nRule {RULE}, in `harness/metrics/final_number.py`" in page
    for number, way in enumerate(WAYS, 1):
        assert f"\n| {number}. {way} | " in page


@pytest.mark.parametrize("name", NUMBER_FORMS)
@pytest.mark.parametrize("number", ["18", "-5", "1234567", "0.25", "7"])
def test_a_form_gives_its_number_and_no_other_whatever_way_is_first(name: str, number: str) -> None:
    answer = NUMBER_FORMS[name](number)
    for way in WAYS[:3]:
        found = find_final_number(answer, way)
        assert found is not None
        assert found.value == value(number)
    wrong = NUMBER_FORMS[name]("22" if number == "18" else "18")
    assert score_number(f"#### {number}", wrong, ()).scores["numeric"] == 0.0


@pytest.mark.parametrize(
    "answer", ["", " \n", "I do not know.", "no idea...", "nan", "#### inf", "\\boxed{}", "See the question?"]
)
def test_an_answer_without_a_number_gives_none(answer: str) -> None:
    assert find_number(answer) is None


def test_each_rule_of_an_ending_comes_first_where_it_is_asked_first() -> None:
    answer = "The answer is 3. \\boxed{4}\n#### 5"
    assert [find_final_number(answer, way).text for way in ("mark", "box", "phrase")] == ["5", "4", "3"]  # type: ignore[union-attr]
    assert find_number("So \\boxed{4}. The answer is 3.", CHAIN_OF_THOUGHT) == "3"
    assert find_number("The answer is", CHAIN_OF_THOUGHT) is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("18", "18.00"),
        ("1/3", "1/3"),
        ("0.3333", "0.3333"),
        ("-2.5", "-5/2"),
        ("1000000", "1e6"),
        ("0.002", "2e-3"),
        ("256", "2^8"),
        ("-4", "-2^2"),
        ("0.75", "¾"),
        ("4.5", "4 1/2"),
        ("105000", "one hundred and five thousand"),
        ("25", "twenty-five"),
    ],
)
def test_equal_values_are_written_in_one_way(number: str, text: str) -> None:
    assert find_number(f"The answer is {text}.") == number


# Each was quadratic in some draft, or is what answers are made of.
PIECES = [
    "9", ",", "1,", "12,", "123,", "123.", "1 ", "-", "=1", "1+", "#### ", "####", "####\n", "#### a\n", "\\boxed{", "{", "}", "\\boxed{1}",
    "\n", "\nQ:", "\nQuestion: 5", "answer is ", "answer: ", "answer", "answer to ", "answer (", "**", "**1", "(", "1(", "<<", "<<1=", "<b>",
    "<|", "</think>", "\\frac{", "\\frac1", "\\frac{\\frac{", "^", "²", "½", "٣", "18^", "1e5", "1/", "1 1/2 ", "1. a\n", "|1", " ", "# 1\n",
    "step 1 ", "Check:\n", "one hundred ", "1:30", "$", "$1", "9^{9^{9^", "\x00", "\ud800", "__import__('os').system('true') 1 ",
]  # fmt: skip


@pytest.fixture
def alarm() -> Iterator[None]:
    signal.alarm(300)  # stops a hang
    yield
    signal.alarm(0)


def test_hostile_answers_are_scored_at_once(alarm: None) -> None:
    started = time.perf_counter()
    for piece in PIECES:
        find_final_number(piece * (5000 // len(piece)))
    assert time.perf_counter() - started < 60  # a second; quadratic ones take minutes


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_ten_megabytes_are_scored_in_about_a_second(piece: str, alarm: None) -> None:
    started = time.process_time()
    score = score_number("#### 7777777", piece * (10_000_000 // len(piece)), ("Question:", "</s>"))
    assert score.scores["numeric"] == 0.0
    assert time.process_time() - started < 5

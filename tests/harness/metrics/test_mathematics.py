"""Final answers of MATH: where they stand in an output, what counts as equal, and lm-eval's own process_results beside ours."""

from __future__ import annotations

import random
import signal

import pytest

from dskd.plugins import load_file
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.math_equivalence import equivalent, find_answer, score_final_answer

STOP = ["Problem:"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"first \boxed{1}, no, \boxed{ 2 }", "2"),
        (r"\boxed{a \boxed{b} c}", "b"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {3}", "3"),
        (r"\boxed{4} and broken off \boxed{5", "4"),
        (r"we get $x = 1$ and so $7$.", "7"),
        (r"it costs \$5, that is $5$", "5"),
        ("no sign\nThe answer is: 42.\n", "42"),
        ("first\n42\n", "42"),
        (r"\boxed{}", None),
        ("}}}{", "}}}{"),
        (" \n", None),
        ("", None),
    ],
)
def test_the_answer_is_found(text: str, answer: str | None) -> None:
    assert find_answer(text) == answer


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\dfrac12", r"\frac{1}{2}", True),
        ("1/2", r"\frac{1}{2}", True),
        ("0.5", r"\frac{1}{2}", True),
        (r"\left(1, 2\right)", "(1,2)", True),
        (r"90^\circ", "90", True),
        (r"50\%", "50", True),
        ("x = 5", "5", True),
        (r"5\text{ cm}", "5", True),
        ("x+1", "1+x", False),
        ("12", "13", False),
    ],
)
def test_equal_is_what_hendrycks_normalisation_makes_equal(one: str, other: str, same: bool) -> None:
    assert equivalent(one, other) == same


def test_an_answer_after_the_stop_does_not_count() -> None:
    score = score_final_answer("2", "$2$\n\nProblem: another\nAnswer: $3$", STOP)
    assert score.scores["equivalent"] == 100.0
    assert score.outcome == "correct"


def test_an_empty_output_is_invalid_and_a_wrong_one_wrong() -> None:
    assert score_final_answer("2", " ", STOP).outcome == "invalid"
    score = score_final_answer("2", "3", STOP)
    assert (score.outcome, set(score.scores.values())) == ("wrong", {0.0})


PIECES = [
    "\\frac",
    "\\sqrt",
    "\\text{ ",
    "\\boxed{",
    "$",
    "{",
    "}",
    "/",
    "=",
    ".",
    " ",
    "\n",
    "\\",
    "%",
    "^\\circ",
    "1",
    "2",
    "x",
]


def test_exact_match_is_lm_eval_s_on_any_text() -> None:
    theirs = load_file(tasks_of_lm_eval() / "hendrycks_math" / "utils.py").process_results
    draw = random.Random(0)
    right = 0
    for _ in range(4000):
        answer = draw.choice([r"\frac{1}{2}", "12", "x", "0"])
        output = "".join(draw.choices(PIECES, k=draw.randint(0, 8)))
        if draw.random() < 0.4:
            output = f"{output}${answer}$"
        doc = {"solution": f"It is $\\boxed{{{answer}}}$."}
        score = score_final_answer(answer, output, STOP)
        assert score.scores["exact_match"] == 100.0 * theirs(doc, [output])["exact_match"], output
        right += score.scores["exact_match"] == 100.0
    assert 100 < right < 3900


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "{", "}", "$", "\\frac", "\\sqrt", "9", "/", "\\text{ ", "__import__('os')", "(", "9**"]
)
def test_hostile_answers_are_wrong_and_do_not_hang(piece: str, request: pytest.FixtureRequest) -> None:
    signal.alarm(120)  # stops a hang: they take less than a second
    request.addfinalizer(lambda: signal.alarm(0))
    score = score_final_answer("7", piece * (60_000 // len(piece)), STOP)
    assert score.scores == {"equivalent": 0.0, "exact_match": 0.0}

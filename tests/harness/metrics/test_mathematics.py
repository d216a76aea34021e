"""Final answers of MATH: where they stand in an output, what counts as equal, and lm-eval's own process_results beside ours."""

from __future__ import annotations

import importlib.metadata
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dskd.plugins import load_file
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics import math_equivalence
from harness.metrics.final_answer import find_answer
from harness.metrics.math_equivalence import equal_by_string, equal_by_text, exact_match, score_final_answers
from harness.metrics.math_verification import prepare
from harness.metrics.plain_mathematics import as_latex
from harness.metrics.sample import SampleScore
from harness.metrics.scoring_processes import run_in_processes
from helpers.expression_forms import FORMS, RIGHT, WRONG
from helpers.scoring_functions import import_math_verify, run_by_an_answer

STOP = ["Problem:"]


def scores_of(cases: list[tuple[str, str]], stop: list[str] | None = None) -> list[SampleScore]:
    """The scores of (reference, output) pairs; without stops, as for a chat model."""
    references = [reference for reference, _ in cases]
    solutions = [f"It is $\\boxed{{{reference}}}$." for reference in references]
    return score_final_answers(references, solutions, [output for _, output in cases], stop or [], lambda: None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"first \boxed{1}, no, \boxed{ 2 }", "2"),
        (r"\boxed{a \boxed{b} c}", "b"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {3}", "3"),
        (r"\boxed{4} and broken off \boxed{5", "4"),
        (r"\boxed{3} or \boxed{5}", "3 or 5"),
        (r"$\boxed{3}$, $\boxed{5}$ and $\boxed{7}$", "3, 5, 7"),
        (r"we get $x = 1$ and so $7$.", "7"),
        (r"it costs \$5, that is $5$", "5"),
        ("no sign\nThe answer is: 42.\n", "42"),
        ("The final answer is $5$, and not, as the answer is for others, $6$.", "5"),
        ("The answer is not 5. The answer is 6.", "6"),
        ("I am sure that the answer is correct: $6$", "6"),
        ("first\n42\n", "42"),
        ("}}}{", "}}}{"),
        (" \n", None),
        ("", None),
        ("```\n```", None),
    ],
)
def test_the_answer_is_found(text: str, answer: str | None) -> None:
    assert find_answer(text) == answer


def test_answers_in_the_forms_that_models_use_are_right() -> None:
    assert len(RIGHT) + len(FORMS) >= 60
    wrong = [case for case, score in zip(RIGHT, scores_of(RIGHT), strict=True) if score.scores["equivalent"] != 100.0]
    assert wrong == []


def test_wrong_answers_in_such_forms_are_wrong() -> None:
    right = [case for case, score in zip(WRONG, scores_of(WRONG), strict=True) if score.scores["equivalent"] != 0.0]
    assert right == []


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
def test_equal_as_strings_is_what_hendrycks_normalisation_makes_equal(one: str, other: str, same: bool) -> None:
    assert equal_by_string(one, other) == same


def test_math_verify_is_asked_only_where_the_text_does_not_say_it() -> None:
    assert equal_by_text("3.0", "3") is True
    assert equal_by_text("3.1", "3") is False
    assert equal_by_text(r"\text{odd}", r"\text{even}") is False
    assert equal_by_text("1+x", "x+1") is None
    assert equal_by_text("+".join(["x"] * 400), "x+1") is False  # too long to be one


@pytest.mark.parametrize(
    ("written", "latex"),
    [
        ("1\N{VULGAR FRACTION ONE HALF}", r"1\frac{1}{2}"),
        ("x\N{SUPERSCRIPT TWO}", "x^{2}"),
        ("\N{SQUARE ROOT}(x+1)/\N{SQUARE ROOT}2", r"\sqrt{x+1}/\sqrt{2}"),
        ("sqrt(sqrt(2)+1)", r"\sqrt{\sqrt{2}+1}"),
        ("sqrt(2", "sqrt(2"),
        ("3*pi/4", r"3\cdot \pi /4"),
        ("٤٢", "42"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("11,\\! 111,\\! 100", "11,111,100"),
    ],
)
def test_plain_mathematics_becomes_latex(written: str, latex: str) -> None:
    assert as_latex(written) == latex


def test_an_answer_after_the_stop_does_not_count() -> None:
    (score,) = scores_of([("2", "$2$\n\nProblem: another\nAnswer: $3$")], STOP)
    assert score.scores["equivalent"] == 100.0
    assert score.outcome == "correct"


def test_an_empty_output_is_invalid_and_a_wrong_one_wrong() -> None:
    empty, wrong = scores_of([("2", " "), ("2", "3")])
    assert empty.outcome == "invalid"
    assert (wrong.outcome, set(wrong.scores.values())) == ("wrong", {0.0})


def test_each_output_is_announced() -> None:
    done: list[None] = []
    score_final_answers(["1"] * 3, [r"\boxed{1}"] * 3, ["$1$", "", "$1+x$"], [], lambda: done.append(None))
    score_final_answers(["1"] * 2, [r"\boxed{1}"] * 2, ["", " "], [], lambda: done.append(None))
    assert len(done) == 5


PIECES = [*"${}/=. \n\\%12x", "\\frac", "\\sqrt", "\\text{ ", "\\boxed{", "^\\circ"]


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
        ours = exact_match(answer, output)
        assert ours == theirs(doc, [output])["exact_match"], output
        right += ours
    assert 100 < right < 3900


def outputs(seed: int) -> Iterator[tuple[str, str]]:
    """Answers in the forms of the tables, right and wrong, and each with a letter dropped or doubled."""
    draw = random.Random(seed)
    for reference, output in draw.sample(RIGHT, 20) + draw.sample(WRONG, 10):
        yield reference, output
        at = draw.randrange(len(output))
        yield reference, output[:at] + output[at + draw.choice([1, -1]) :]


def test_math_verify_s_own_extraction_is_what_minerva_math_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module asks for another ANTLR, which only its own string rule needs; that one is left out here."""
    import_math_verify()  # which chooses its parser by the version, too
    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "version", lambda _: "4.11")
        theirs: Any = load_file(tasks_of_lm_eval() / "minerva_math" / "utils.py")
    monkeypatch.setattr(theirs, "is_equiv", lambda *_: False)
    cases = list(outputs(seed=4))
    expected = [
        100.0
        * theirs.process_results({"solution": f"It is $\\boxed{{{reference}}}$.", "answer": ""}, [output])[
            "math_verify"
        ]
        for reference, output in cases
    ]
    assert [score.scores["math_verify"] for score in scores_of(cases)] == expected
    assert 10 < sum(expected) / 100 < len(cases) - 10


# An answer that sympy makes code of: a variable of an infinite sum, whose name reaches the generated function as it is.
RUN_BY_SYMPY = "[help[exec]\x0cfor\x0chelp.__class__.__getitem__\x0cin[print]]"


def test_an_answer_that_sympy_would_make_code_of_is_not_run() -> None:
    answer = f"$\\sum_{{n=0}}^{{\\infty}} \\frac{{\\text{{{RUN_BY_SYMPY}}}^n}}{{n!}}+0$"
    question = ("output", "$2x$", answer)
    # Without our guards it is run: where this fails, sympy or math-verify has changed, and the guards may go.
    assert run_in_processes(run_by_an_answer, [question], lambda: None, prepare=import_math_verify) == [True]
    assert run_in_processes(run_by_an_answer, [question], lambda: None, prepare=prepare) == [False]


def test_infinite_sums_are_still_compared_by_value() -> None:
    sums = [("2", r"\boxed{\sum_{n=0}^{\infty} \frac{1}{2^n}}"), ("3", r"\boxed{\sum_{n=0}^{\infty} \frac{1}{2^n}}")]
    assert [score.scores["equivalent"] for score in scores_of(sums)] == [100.0, 0.0]


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "\\boxed{",
            "{",
            "}",
            "$",
            "\\[",
            "\\frac",
            "\\sqrt",
            "9",
            "/",
            "\\text{ ",
            "__import__('os')",
            "(",
            "9**",
            "\x00",
        ),
        *(
            "answer is ",
            "Answer:\n",
            "Problem:\n",
            "**",
            "\N{SQUARE ROOT}(",
            "\\boxed{1}, ",
            "sqrt(",
            "\N{ARABIC-INDIC DIGIT FOUR}",
        ),
    ],
)
@pytest.mark.parametrize("size", [1_000_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_megabytes_of_anything_are_read_in_seconds(piece: str, size: int) -> None:
    start = time.process_time()
    text = piece * (size // len(piece))
    answer = find_answer(text)
    if answer is not None:
        assert equal_by_text(answer, "7") is not True
    assert not exact_match("7", text)
    assert time.process_time() - start < 20


EVIL = "__import__('os').system('touch {file}')"
BOMB = r"\boxed{9^{9^{9^9}}}"
BOMBS = [
    BOMB,
    r"\boxed{10^{10^{10}}!}",
    r"\boxed{\operatorname{eye}(1000000)}",
    "the answer is 9^9^9^9 now.",
    r"\boxed{((((9!)!)!)!)!}",
    r"\boxed{\operatorname{zeros}(100000,100000)}",
    r"\boxed{\binom{10^{9}}{5\cdot 10^8}}",
    r"\boxed{\sum_{n=1}^{\infty} \frac{1}{n^{2+\frac{1}{n}}}}",
    r"\boxed{\int_0^{\infty} \frac{\sin(x^{3.7})e^{-x^{1.3}}}{\sqrt{1+x^5}} dx}",
    r"\boxed{(x+y+z+w)^{200} - (x+y+z)^{199}}",
    r"\boxed{" + r"\frac{1}{1+" * 40 + "x" + "}" * 40 + "}",
    "$" + "2^{" * 100 + "2" + "}" * 100 + "$",
    r"\boxed{\begin{pmatrix}" + r"\\".join(["&".join(["1"] * 60)] * 60) + r"\end{pmatrix}}",
    "1E999999999",
    "\\boxed{5\udc00}",
    "\\boxed{5\x00}",
    "{" * 10_000_000,
    "$" + "9 " * 5_000_000 + "$",
]
DISGUISES = [
    r"\boxed{@}",
    r"\boxed{\text{@}}",
    r"\boxed{\operatorname{@}(x)}",
    r"\boxed{\mathrm{@} + 1}",
    "the answer is @",
    r"$x_{@}$",
    r"\boxed{(\lambda: @)()}",
    r"\boxed{\sum_{n=0}^{\infty} \frac{\mathrm{@}^n}{n!}+0}",
]


def test_a_bomb_is_wrong_and_an_answer_beside_it_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_equivalence, "SECONDS", 1.0)
    bomb, right = scores_of([("5", BOMB), ("x+5", r"\boxed{5+x}")])
    assert (bomb.outcome, set(bomb.scores.values())) == ("timeout", {0.0})
    assert "math_verify: not scored within 1 seconds of the processor" in bomb.detail
    assert right.scores["equivalent"] == 100.0


@pytest.mark.slow
def test_no_answer_hangs_or_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_equivalence, "SECONDS", 2.0)
    for reference in ("5", "2x", r"\frac{\sqrt{2}}{3}"):
        for score in scores_of([(reference, bomb) for bomb in BOMBS]):
            assert set(score.scores.values()) == {0.0}
            assert score.outcome in ("wrong", "timeout", "memory")


def test_code_in_an_answer_is_not_run(tmp_path: Any) -> None:
    file = tmp_path / "file"
    evil = EVIL.format(file=file)
    scores = scores_of([(reference, form.replace("@", evil)) for reference in ("5", "2x") for form in DISGUISES])
    assert {tuple(score.scores.values()) for score in scores} == {(0.0, 0.0, 0.0)}
    assert {score.outcome for score in scores} == {"wrong"}
    assert not file.exists()

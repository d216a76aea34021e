"""Scores the final answers of worked problems, as MATH's are: expressions, compared by value.

Three rules: ours (`equivalent`), math-verify's as lm-eval's minerva_math calls it (`math_verify`), and the string rule of lm-eval's
hendrycks_math (`exact_match`). docs/answers.md has ours. Hostile text is parsed in processes of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from dskd.plugins import load_file
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.final_answer import find_answer
from harness.metrics.math_verification import judge, prepare
from harness.metrics.plain_mathematics import as_latex
from harness.metrics.sample import INVALID, Advance, SampleScore, before_stop
from harness.metrics.scoring_processes import Failed, run_in_processes

SECONDS = 10.0  # of the processor, for each question to math-verify
_LONGEST = 500  # characters of an answer that math-verify is asked about; MATH's references have 60 at most
_NUMERAL = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?")
_BASE = re.compile(r"(?P<digits>[0-9A-Z]+)(?:_\{?(?P<base>\d+)\}?)?")
_WRAPPER = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]+")
_CHOICE = re.compile(r"\(([A-Z])\)")
_CHOSEN = re.compile(r"\(?([A-Z])(?:[).:].*)?", re.DOTALL)

Question = tuple[str, str, str]


def score_final_answers(
    references: Sequence[str],
    solutions: Sequence[str],
    outputs: Sequence[str],
    stop: Sequence[str],
    advance: Advance,
    *,
    workers: int | None = None,
) -> list[SampleScore]:
    """Return the scores of outputs, in their order, with the metrics `equivalent`, `math_verify` and `exact_match`.

    Args:
        references: The final answers, in LaTeX.
        solutions: The worked solutions, which minerva_math reads the reference from.
        stop: An output is cut at the earliest of these for `equivalent`, which reads what is left.
        workers: How many processes, by default as `run_in_processes`.
    """
    answers = [find_answer(before_stop(output, stop)) for output in outputs]
    known = [
        answer is not None and equal_by_text(answer, reference)
        for answer, reference in zip(answers, references, strict=True)
    ]
    questions: dict[tuple[int, str], Question] = {}
    for number, (reference, solution, output) in enumerate(zip(references, solutions, outputs, strict=True)):
        if output.strip():
            questions[number, "math_verify"] = ("output", solution, output)
        if known[number] is None:
            questions[number, "equivalent"] = ("value", as_latex(reference), as_latex(answers[number] or ""))
    verdicts = _asked(questions, len(outputs), advance, workers)
    return [
        _score(answers[number], known[number], exact_match(reference, output), verdicts, number)
        for number, (reference, output) in enumerate(zip(references, outputs, strict=True))
    ]


def _asked(
    questions: dict[tuple[int, str], Question], total: int, advance: Advance, workers: int | None
) -> dict[tuple[int, str], Any]:
    """The verdict on each question; `advance` is called `total` times on the way."""
    asked = list(questions)
    marks = iter(_evenly(total, len(asked)))

    def answered() -> None:
        for _ in range(next(marks)):
            advance()

    verdicts = run_in_processes(
        judge, [questions[key] for key in asked], answered, seconds=SECONDS, prepare=prepare, workers=workers
    )
    if not asked:
        for _ in range(total):
            advance()
    return dict(zip(asked, verdicts, strict=True))


def _evenly(total: int, steps: int) -> Iterator[int]:
    """How much of a total each of so many steps brings."""
    for step in range(steps):
        yield total * (step + 1) // steps - total * step // steps


def _score(
    answer: str | None, known: bool | None, exact: bool, verdicts: dict[tuple[int, str], Any], number: int
) -> SampleScore:
    right: dict[str, Any] = {
        "equivalent": known if known is not None else verdicts[number, "equivalent"],
        "math_verify": verdicts.get((number, "math_verify"), False),
    }
    scores: dict[str, float | None] = {}
    for metric, verdict in right.items():
        failed = verdict if isinstance(verdict, Failed) else None
        scores[metric] = failed.score([metric]).scores[metric] if failed else 100.0 * verdict
    scores["exact_match"] = 100.0 * exact
    details = [f"{metric}: {verdict.detail}" for metric, verdict in right.items() if isinstance(verdict, Failed)]
    ours = right["equivalent"]
    outcome = (
        INVALID if answer is None else ours.outcome if isinstance(ours, Failed) else "correct" if ours else "wrong"
    )
    return SampleScore(scores, {"equivalent": answer}, outcome, "; ".join(details))


def exact_match(reference: str, output: str) -> bool:
    """Return lm-eval's hendrycks_math mark: what stands between the first and the last dollar sign, or all, as normalised text."""
    first, last = output.find("$"), output.rfind("$")
    return equal_by_string(output[first + 1 : last] if first != last else output, reference)


def equal_by_string(one: str, other: str) -> bool:
    """Return whether lm-eval's `is_equiv` of hendrycks_math finds two answers equal."""
    return bool(load_file(tasks_of_lm_eval() / "hendrycks_math" / "utils.py").is_equiv(one, other))


def equal_by_text(answer: str, reference: str) -> bool | None:
    """Return whether an answer is right where its text says so; None where math-verify has to be asked for its value."""
    answer, reference = answer[: 2 * _LONGEST], as_latex(reference)
    latex = as_latex(answer)
    if latex == reference or equal_by_string(answer, reference) or equal_by_string(latex, reference):
        return True
    plain, gold = _plain(latex), _plain(reference)
    if _is_numeral(plain) and _is_numeral(gold):
        return _number(plain) == _number(gold)
    if (base := _BASE.fullmatch(gold)) and base["base"]:
        given = _BASE.fullmatch(plain)
        return given is not None and given["digits"] == base["digits"] and given["base"] in (None, base["base"])
    if choice := _CHOICE.fullmatch(gold):
        chosen = _CHOSEN.fullmatch(plain)
        return chosen is not None and chosen[1] == choice[1]
    if _WORDS.fullmatch(gold) and "\\text" in reference:
        return _letters(plain) == _letters(gold)
    return None if len(latex) <= _LONGEST else False


def _plain(latex: str) -> str:
    return _WRAPPER.sub(r"\1", latex).strip().strip("*_\"'.").strip()


def _is_numeral(text: str) -> bool:
    return _NUMERAL.fullmatch(text) is not None and any(letter.isdigit() for letter in text)


def _number(numeral: str) -> Fraction:
    return Fraction(numeral.replace(",", "").rstrip("."))


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalpha())

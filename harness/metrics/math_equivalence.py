r"""Scores the final answer of a worked problem, as MATH's are: expressions in LaTeX, compared as normalised text.

The normalisation is lm-eval's (`is_equiv` of its task hendrycks_math, which is Hendrycks et al.'s): \dfrac is \frac, 1/2 is
\frac{1}{2}, units, spaces and \left go. It compares strings and parses nothing: an answer is text that a model wrote, and sympy's
parsers evaluate such text in this process. So x+1 and 1+x are two answers; what is found equal is equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dskd.plugins import load_file
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.sample import INVALID, SampleScore, before_stop

_BRACE = re.compile(r"\\boxed\s*\{|[{}]")
_DOLLARS = re.compile(r"(?<!\\)\$")


def score_final_answer(reference: str, output: str, stop: Sequence[str]) -> SampleScore:
    """Score an output against a reference; our rule finds the answer (`equivalent`), or lm-eval's does (`exact_match`)."""
    answer = find_answer(before_stop(output, stop))
    # What lm-eval's hendrycks_math compares is between the first and the last dollar sign, or all.
    first, last = output.find("$"), output.rfind("$")
    between = output[first + 1 : last] if first != last else output
    scores: dict[str, float | None] = {
        "equivalent": 100.0 * (answer is not None and equivalent(answer, reference)),
        "exact_match": 100.0 * equivalent(between, reference),
    }
    outcome = INVALID if answer is None else "correct" if scores["equivalent"] else "wrong"
    return SampleScore(scores, {"equivalent": answer, "exact_match": between or None}, outcome)


def find_answer(text: str) -> str | None:
    r"""Return what is in the last \boxed{}, or else between the last two dollar signs, or else on the last line.

    Of a last line that says "the answer is", what follows that.
    """
    if (boxed := _last_boxed(text)) is not None:
        return boxed.strip() or None
    parts = _DOLLARS.split(text)
    inline = [part.strip() for part in parts[1:-1:2] if part.strip()]  # every second part is between two signs
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if inline or not lines:
        return inline[-1] if inline else None
    return lines[-1].rpartition("answer is")[2].strip(" :").removesuffix(".") or None


def equivalent(one: str, other: str) -> bool:
    """Return whether lm-eval's `is_equiv` finds two answers equal."""
    return bool(load_file(tasks_of_lm_eval() / "hendrycks_math" / "utils.py").is_equiv(one, other))


def _last_boxed(text: str) -> str | None:
    """The content of the boxed expression that begins last, of those that are closed; in one pass, whatever the text."""
    open_braces: list[int | None] = []  # where the content of a box begins, None for other braces
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        if match[0] != "}":
            open_braces.append(None if match[0] == "{" else match.end())
        elif open_braces and (start := open_braces.pop()) is not None and (last is None or start > last[0]):
            last = start, match.start()
    return None if last is None else text[last[0] : last[1]]

r"""Scores answers that are integers, as AIME's are: our rule, `integer`, and lm-eval's for aime24 and aime25, `exact_match`.

`integer` reads the final number (`harness.metrics.final_number`), of a box before all else, and compares values. lm-eval's takes the
last box, or else what is between the first and the last dollar sign, or else the whole output, and compares normalised text: 073 is
not 73 there, and an answer without a box is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from dskd.plugins import load_file
from harness.lm_eval_files import tasks_of_lm_eval
from harness.metrics.final_number import find_final_number
from harness.metrics.sample import INVALID, SampleScore, before_stop

# lm-eval's rule walks over every letter in Python; nobody's answer is longer.
_LONGEST = 1_000_000


def score_integer(answer: int, output: str, stop: Sequence[str]) -> SampleScore:
    """Score an output against an integer. lm-eval's rule gets the output as it was handed over, as its own models have cut it."""
    number = find_final_number(before_stop(output, stop), "box")
    right = number is not None and number.value == answer
    scores: dict[str, float | None] = {
        "integer": 100.0 * right,
        "exact_match": 100.0 * (len(output) <= _LONGEST and matches_as_lm_eval(answer, output)),
    }
    outcome = INVALID if number is None else "correct" if right else "wrong"
    return SampleScore(scores, {"integer": None if number is None else number.text}, outcome)


def matches_as_lm_eval(answer: int, output: str) -> bool:
    """Return whether `process_results` of lm-eval's aime tasks holds an output for right."""
    theirs = load_file(tasks_of_lm_eval() / "aime" / "utils.py").process_results
    return bool(theirs({"answer": answer}, [output])["exact_match"])

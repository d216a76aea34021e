r"""Scores the final number of a worked answer, as GSM8K does: two rules of lm-eval's, and one of ours.

`strict` and `flexible` are those of lm-eval's task gsm8k, version 3, to the letter, so that tables can be compared:
they see the output as it was handed over (lm-eval's models, like ours, have cut it at the stop). What they miss is a
matter of form: strict wants "#### 18", flexible takes a sentence's full stops for a number, and neither knows that
18.00 is 18.

`numeric` reads the number that the answer gives (`harness.metrics.final_number`) and compares values. It is the headline.

What comes before the final number depends on the examples that a model was shown: `MARKED` answers end in "#### 18", those of
`CHAIN_OF_THOUGHT` (lm-eval's gsm8k_cot, version 3) in "The answer is 18."
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from harness.metrics.final_number import Way, find_final_number
from harness.metrics.number_text import numbers
from harness.metrics.plain_text import plain
from harness.metrics.sample import INVALID, SampleScore, before_stop


@dataclass(frozen=True)
class Ending:
    """How an answer gives its number: `first` is the way of our rule that decides; `strict` the pattern of lm-eval's strict-match."""

    first: Way
    strict: re.Pattern[str]


MARKED = Ending("mark", re.compile(r"#### (\-?[0-9\.\,]+)"))
# The last dot is lm-eval's own and stands for any character: "The answer is 18" without a full stop gives 1.
CHAIN_OF_THOUGHT = Ending("phrase", re.compile(r"The answer is (\-?[0-9\.\,]+)."))

# lm-eval's is (-?[$0-9.,]{2,})|(-?[0-9]+).
_FLEXIBLE_RUN = re.compile(r"[$0-9.,]{2,}|[0-9]")
_NOT_IN_FLEXIBLE = re.compile(r"[^-$0-9.,]")


def score_number(
    reference: str, output: str, stop: Sequence[str], ending: Ending = MARKED, tolerance: Fraction = Fraction(0)
) -> SampleScore:
    """Score an output against a GSM8K answer, whose number is after "#### "; `numeric` is right within `tolerance`, which is not."""
    number = find_final_number(before_stop(output, stop), ending.first)
    extracted = {
        "numeric": None if number is None else number.text,
        "strict": extract_strict(output, ending),
        "flexible": extract_flexible(output),
    }
    right = number is not None and is_within(number.value, value(reference.rpartition("####")[2]), tolerance)
    scores: dict[str, float | None] = {
        "numeric": 100.0 * right,
        "strict": 100.0 * equals_as_lm_eval(extracted["strict"], reference),
        "flexible": 100.0 * equals_as_lm_eval(extracted["flexible"], reference),
    }
    return SampleScore(scores, extracted, INVALID if number is None else "correct" if right else "wrong")


def is_within(one: Fraction | None, other: Fraction | None, tolerance: Fraction = Fraction(0)) -> bool:
    """Return whether two values are equal, or less than the tolerance apart; a number without a value equals none."""
    return one is not None and other is not None and (one == other or abs(one - other) < tolerance)


def extract_strict(output: str, ending: Ending = MARKED) -> str | None:
    """Return the first number after the mark, as lm-eval's strict-match; None where that says "[invalid]"."""
    match = ending.strict.search(output)
    return match[1].strip() if match else None


def extract_flexible(output: str) -> str | None:
    """Return the last thing like a number, as lm-eval's flexible-extract; None where that says "[invalid]"."""
    # lm-eval's pattern matches nothing but such a run and a minus before it, so that the last can be looked for from the end.
    size = 1000
    while True:
        start = max(0, len(output) - size)
        boundary = _NOT_IN_FLEXIBLE.search(output, start) if start else None
        if not start or boundary:
            found = deque(_FLEXIBLE_RUN.finditer(output, boundary.end() if boundary else 0), maxlen=1)
            if found:
                begin = found[0].start()
                return output[begin - 1 if output[begin - 1 : begin] == "-" else begin : found[0].end()]
            if not start:
                return None
        size *= 2


def equals_as_lm_eval(extracted: str | None, reference: str) -> bool:
    """Return whether lm-eval's exact_match, with the settings of gsm8k, finds the two equal."""
    return _ignore_as_lm_eval("[invalid]" if extracted is None else extracted) == _ignore_as_lm_eval(reference)


def value(text: str) -> Fraction | None:
    """Return the value of a text's first number ("18.00" is 18, "3/4" is 0.75); None without one or if endless."""
    found = numbers(plain(text))
    return found[0].value if found else None


def _ignore_as_lm_eval(text: str) -> str:
    r"""Remove, in this order, what gsm8k's regexes_to_ignore remove: ",", "\$", "(?s).*#### " and "\.$"."""
    text = text.replace(",", "").replace("$", "").rpartition("#### ")[2]
    return re.sub(r"\.$", "", text).lower()

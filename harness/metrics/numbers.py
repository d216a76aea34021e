r"""Scores the final number of a worked answer, as GSM8K does: two rules of lm-eval's, and one of ours.

`strict` and `flexible` are those of lm-eval's task gsm8k, version 3, to the letter, so that tables can be compared:
they see the output as it was handed over (lm-eval's models, like ours, have cut it at the stop). What they miss is a
matter of form: strict wants "#### 18", flexible takes a sentence's full stops for a number, and neither knows that
18.00 is 18.

`numeric` reads the number that the answer gives and compares values. It is the headline.

What comes before the final number depends on the examples that a model was shown: `MARKED` answers end in "#### 18", those of
`CHAIN_OF_THOUGHT` (lm-eval's gsm8k_cot, version 3) in "The answer is 18."
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from harness.metrics.sample import INVALID, SampleScore, before_stop


@dataclass(frozen=True)
class Ending:
    """How an answer gives its number: after `mark`; `strict` is the pattern of lm-eval's strict-match."""

    mark: str
    strict: re.Pattern[str]


MARKED = Ending("####", re.compile(r"#### (\-?[0-9\.\,]+)"))
# The last dot is lm-eval's own and stands for any character: "The answer is 18" without a full stop gives 1.
CHAIN_OF_THOUGHT = Ending("The answer is", re.compile(r"The answer is (\-?[0-9\.\,]+)."))

_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_NUMBER = re.compile(
    r"(?:(?<![0-9)])-)?"  # a minus after a digit or a bracket subtracts
    r"(?:[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:/0*[1-9][0-9]*(?![0-9]*\.[0-9]))?"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
# Longer digit strings are a model that cannot stop, and costly to turn into a number.
_MOST_DIGITS = 200


def score_number(reference: str, output: str, stop: Sequence[str], ending: Ending = MARKED) -> SampleScore:
    """Score an output against a GSM8K answer, whose number is after "#### "."""
    answer = before_stop(output, stop)
    number = find_number(answer, ending)
    extracted = {"numeric": number, "strict": extract_strict(output, ending), "flexible": extract_flexible(output)}
    right = number is not None and value(number) == value(reference.rpartition("####")[2])
    scores: dict[str, float | None] = {
        "numeric": 100.0 * right,
        "strict": 100.0 * equals_as_lm_eval(extracted["strict"], reference),
        "flexible": 100.0 * equals_as_lm_eval(extracted["flexible"], reference),
    }
    return SampleScore(scores, extracted, INVALID if number is None else "correct" if right else "wrong")


def extract_strict(output: str, ending: Ending = MARKED) -> str | None:
    """Return the first number after the mark, as lm-eval's strict-match; None where that says "[invalid]"."""
    matches = ending.strict.findall(output)
    return matches[0].strip() if matches else None


def extract_flexible(output: str) -> str | None:
    """Return the last thing like a number, as lm-eval's flexible-extract; None where that says "[invalid]"."""
    matches = _FLEXIBLE.findall(output)
    return (matches[-1][0] or matches[-1][1]).strip() if matches else None


def equals_as_lm_eval(extracted: str | None, reference: str) -> bool:
    """Return whether lm-eval's exact_match, with the settings of gsm8k, finds the two equal."""
    return _ignore_as_lm_eval("[invalid]" if extracted is None else extracted) == _ignore_as_lm_eval(reference)


def find_number(answer: str, ending: Ending = MARKED) -> str | None:
    """Return the number that an answer gives: the first after its last mark, or without one the last of all."""
    _, mark, tail = answer.rpartition(ending.mark)
    numbers = _NUMBER.findall(_plain(tail))
    if not numbers:
        return None
    return numbers[0] if mark else numbers[-1]


def value(text: str) -> Fraction | None:
    """Return the value of a text's first number ("18.00" is 18, "3/4" is 0.75); None without one or if endless."""
    match = _NUMBER.search(_plain(text))
    if match is None or len(match[0]) > _MOST_DIGITS:
        return None
    numerator, _, denominator = match[0].replace(",", "").partition("/")
    return Fraction(numerator) / Fraction(denominator or 1)


def _plain(text: str) -> str:
    """Drop what only dresses a number up: currency, percent, LaTeX and Markdown. LaTeX's fractions become a/b."""
    text = text.replace("\N{MINUS SIGN}", "-").replace("*", " ")
    text = re.sub(r"(?<=[0-9])(?=\\[dt]?frac)", " ", text)  # a mixed number's fraction is not joined to its whole
    text = _FRACTION.sub(lambda match: f"{match[1].strip()}/{match[2].strip()}", text)
    return re.sub(r"[$%\\{}]", "", text.replace("}{", "} {"))


def _ignore_as_lm_eval(text: str) -> str:
    r"""Remove, in this order, what gsm8k's regexes_to_ignore remove: ",", "\$", "(?s).*#### " and "\.$"."""
    text = text.replace(",", "").replace("$", "").rpartition("#### ")[2]
    return re.sub(r"\.$", "", text).lower()

"""Rouge-L and exact match for free answers, as Super-NaturalInstructions, MiniLLM and DSKD score them."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from harness.metrics.sample import INVALID, SampleScore, before_stop

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def score_response(references: Sequence[str], output: str, stop: Sequence[str]) -> SampleScore:
    """Score an output against the best of its references: Rouge-L (F-measure, stemmed) and exact match."""
    response = clean(output, stop)
    scores: dict[str, float | None] = {
        "rouge_l": max(rouge_l(reference, response) for reference in references),
        "exact_match": 100.0 * any(normalise(reference) == normalise(response) for reference in references),
    }
    return SampleScore(scores, {"response": response or None}, "scored" if response else INVALID)


def clean(output: str, stop: Sequence[str]) -> str:
    """Return the answer as it is scored: cut at the stop, MiniLLM's "<n>" as a newline, without space around it."""
    return before_stop(output, stop).replace("<n>", "\n").strip()


def rouge_l(reference: str, response: str) -> float:
    """Return the F-measure of the longest common subsequence of stemmed words, 0..100.

    rouge-score keeps ASCII letters and digits only: a text in another script has no words and scores 0.
    """
    return 100.0 * _scorer().score(reference, response)["rougeL"].fmeasure


def normalise(text: str) -> str:
    """Return the text as SQuAD's exact match compares it, articles kept: no case, punctuation or extra space."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


@cache
def _scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # here: it takes a second to import

    return RougeScorer(["rougeL"], use_stemmer=True)

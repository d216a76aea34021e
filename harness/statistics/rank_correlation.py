"""Spearman's rank correlation of a few pairs, with an interval that says how little a few pairs tell.

The interval is Fisher's, with the variance (1 + r²/2) / (n - 3) of Bonett and Wright (2000), which they give for correlations below
0.95. Ranks see a rise or a fall, and not a hump: where the middle is best, r is near 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from harness.statistics.intervals import CONFIDENCE

FEWEST = 5  # pairs of which there is an interval


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's r of n pairs.

    Attributes:
        value: -1 to 1; None where one side has a single value.
        ci95: None of fewer than five pairs, and of a correlation of 1 or -1, whose interval would have no width.
        n: The number of pairs.
    """

    value: float | None
    ci95: tuple[float, float] | None
    n: int


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> RankCorrelation:
    """The rank correlation of pairs; equal values share the mean of their ranks.

    Args:
        left: One side.
        right: The other, of the same length.

    Raises:
        ValueError: For sides of different lengths.
    """
    if len(left) != len(right):
        raise ValueError(f"{len(left)} and {len(right)} values are no pairs")
    n = len(left)
    if len(set(left)) < 2 or len(set(right)) < 2:
        return RankCorrelation(None, None, n)
    from scipy.stats import spearmanr  # here, because it takes a second

    value = float(spearmanr(left, right).statistic)
    if n < FEWEST or abs(value) > 1 - 1e-9:
        return RankCorrelation(round(value, 4), None, n)
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt((1 + value**2 / 2) / (n - 3))
    low, high = (round(math.tanh(math.atanh(value) + end), 4) for end in (-half, half))
    return RankCorrelation(round(value, 4), (low, high), n)

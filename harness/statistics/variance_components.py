"""Training seeds and items as two levels: the error of a mean, or of a difference of means, over both.

Scores are Y[s, i] = mean + seed[s] + item[i] + rest[s, i], seed and rest of each method by themselves, items shared. So

    Var = seeds + items - rest, where
    seeds = sum over methods of s²(seed means)/S
    items = s²(item means over seeds, or their differences)/n
    rest  = sum over methods of s²(rest)/(S n)

The first two both hold the rest, so it is taken out once (two-way analysis of variance). The quantile is Student's with the degrees
of freedom of Welch and Satterthwaite: three seeds tell their spread badly, and a bootstrap over so few is too narrow.

Seeds that lie closer together than their rest alone would set them make "seeds - rest" negative. To count it whole lets luck narrow
the interval, to count it as 0 makes it too wide on average: half of it counts. And of seeds' variance that the rest explains, less
is in doubt. Both factors were set by simulation; tests/benchmarks/statistics_coverage.py has the coverage, also in worlds that they
were not set in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t, without the second that scipy.stats takes to load

from harness.statistics.intervals import CONFIDENCE, wilson_interval

POWER = 0.8
# How much of a negative "seeds - rest" counts.
BELOW = 0.5
# How much the part of the seeds' variance that the rest explains counts in the degrees of freedom, by the number of methods.
DOUBT = {1: 1.0, 2: 0.8}


@dataclass(frozen=True)
class Spread:
    """A standard error with its degrees of freedom, and the factor by which `pseudo` items draw the estimate to 0."""

    error: float
    freedom: float
    shrink: float = 1.0

    @property
    def quantile(self) -> float:
        """Student's, for both ends of an interval."""
        return float(stdtrit(self.freedom, (1 + CONFIDENCE) / 2))

    def interval(self, estimate: float) -> tuple[float, float]:
        """The interval around an estimate."""
        half = self.quantile * self.error
        return estimate * self.shrink - half, estimate * self.shrink + half

    def p_values(self, estimate: float) -> tuple[float, float]:
        """How likely an estimate at least so far from 0 is where the truth is 0; and one at most as large."""
        if self.error == 0:
            return (1.0, 1.0) if estimate == 0 else (0.0, float(estimate > 0))
        ratio = estimate * self.shrink / self.error
        return float(2 * stdtr(self.freedom, -abs(ratio))), float(stdtr(self.freedom, ratio))

    def detectable(self) -> float:
        """The smallest truth that is told from 0 (p < 0.05, two-sided) in 80 % of cases."""
        return (self.quantile + float(stdtrit(self.freedom, POWER))) * self.error


def spread(items: np.ndarray, methods: Sequence[np.ndarray], *, pseudo: bool = False) -> Spread:
    """The error of the mean of `items` [n], which are means over seeds (or differences of such) of `methods`, each [seeds, n].

    A method without seeds, as a teacher that was given, is left out of `methods`. Of two, the one with a single seed is taken to
    spread as the other does; where none has several, the error is that of the items alone.

    `pseudo`, for differences of binary scores (-100, 0, 100): two items more, half a win, half a loss and a tie (Agresti and Min
    2005), smaller as seeds average. Scores that agree everywhere get an interval of some width by it, and few items the coverage.
    """
    n = items.size
    if pseudo:
        size = n + 2
        added = 100.0**2 * (sum(1 / len(rows) for rows in methods) / len(methods) if methods else 1.0)
        of_items = (float((items**2).sum()) + added - float(items.sum()) ** 2 / size) / size**2
    else:
        size = n
        of_items = float(items.var(ddof=1)) / n
    variance, freedom = of_items, of_items**2 / (n - 1)
    several = [rows for rows in methods if len(rows) > 1]
    if several:
        alone = len(methods) - len(several)
        of_seeds = rest = 0.0
        for rows in several:
            count, weight = len(rows), 1 / len(rows) + alone
            means, left_over = (weight * value for value in _variances(rows))
            of_seeds += means
            rest += left_over / n
            own = max(0.0, means - left_over / n)
            freedom += (own + DOUBT[len(methods)] * (means - own)) ** 2 / (count - 1)
        beyond = of_seeds - rest
        variance = max(of_seeds, of_items * BELOW, of_items + beyond * (1 if beyond > 0 else BELOW))
    return Spread(math.sqrt(variance), variance**2 / freedom if freedom > 0 else float(n - 1), n / size)


def mean_interval(values: np.ndarray, *, fixed: bool = False) -> tuple[float, float]:
    """The interval of the mean of values [seeds, items] on 0..100, of several seeds and at least two items.

    Binary values get Wilson's interval, of as many items as would have this error: it has a width at 0 and 100 as well.
    """
    mean = float(values.mean())
    found = spread(values.mean(axis=0), [] if fixed else [values])
    if not np.isin(values, (0.0, 100.0)).all():
        low, high = found.interval(mean)
        return max(0.0, low), min(100.0, high)
    share, n = mean / 100, values.shape[1]
    size = share * (1 - share) / (found.error / 100) ** 2 if found.error > 0 else float(n)
    low, high = wilson_interval(share * size, size, quantile=found.quantile)
    return 100 * low, 100 * high


def _variances(rows: np.ndarray) -> tuple[float, float]:
    """Of values [seeds, items]: the variance of the seeds' means, and that of what neither seed nor item explains."""
    seeds, n = rows.shape
    means = rows.mean(axis=1)
    rest = rows - means[:, None] - rows.mean(axis=0) + rows.mean()
    return float(means.var(ddof=1)), float((rest**2).sum()) / ((seeds - 1) * (n - 1))

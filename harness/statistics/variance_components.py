"""The error of a mean, or of a difference of means, over training seeds and items as two nested levels.

Scores are Y[s, i] = mean + seed[s] + item[i] + rest[s, i]. Each method has its own seeds and rest; the items are shared. So

    Var = seeds + items - rest, where
    seeds = sum over methods of s²(seed means)/S
    items = s²(item means over seeds, or their differences)/n
    rest  = sum over methods of s²(rest)/(S n)

The first two both contain the rest, so it is subtracted once (two-way analysis of variance). The quantile is Student's with the
degrees of freedom of Welch and Satterthwaite, because a few seeds estimate their spread badly, and a bootstrap over them is too narrow.

When seeds vary less than residual noise predicts, the seed component "seeds - rest" is negative. Using all of it makes intervals too
narrow, clamping to 0 too wide; half is used (`BELOW`). `DOUBT` scales the degrees of freedom likewise. Both were set by simulation.
tests/benchmarks/statistics_coverage.py measures the coverage, also in other worlds than the one they were set in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t, without the second that scipy.stats takes to load

from harness.statistics.intervals import CONFIDENCE, wilson_interval

POWER = 0.8
# The share of a negative "seeds - rest" that is used.
BELOW = 0.5
# The weight, in the degrees of freedom, of the part of the seed variance that the rest explains; by the number of methods.
DOUBT = {1: 1.0, 2: 0.8}


@dataclass(frozen=True)
class Spread:
    """A standard error, its degrees of freedom, and the factor by which `pseudo` items shrink the estimate."""

    error: float
    freedom: float
    shrink: float = 1.0

    @property
    def quantile(self) -> float:
        """Student's quantile for a two-sided interval."""
        return float(stdtrit(self.freedom, (1 + CONFIDENCE) / 2))

    def interval(self, estimate: float) -> tuple[float, float]:
        """The interval around an estimate."""
        half = self.quantile * self.error
        return estimate * self.shrink - half, estimate * self.shrink + half

    def p_values(self, estimate: float) -> tuple[float, float]:
        """The p-values of an estimate under a true value of 0: two-sided, and for "less than 0"."""
        if self.error == 0:
            return (1.0, 1.0) if estimate == 0 else (0.0, float(estimate > 0))
        ratio = estimate * self.shrink / self.error
        return float(2 * stdtr(self.freedom, -abs(ratio))), float(stdtr(self.freedom, ratio))

    def min_detectable_effect(self) -> float:
        """The smallest true value that differs significantly from 0 (p < 0.05, two-sided) in 80 % of cases."""
        return (self.quantile + float(stdtrit(self.freedom, POWER))) * self.error


def spread(items: np.ndarray, methods: Sequence[np.ndarray], *, pseudo: bool = False) -> Spread:
    """The error of the mean over items.

    If one of two methods has a single seed, it is assumed to vary as the other does. If no method has several seeds, the error is
    that of the items only.

    Args:
        items: `[items]`, the means over seeds, or the differences of such means.
        methods: `[seeds, items]` for each method. A model without seeds, like a given teacher, is left out.
        pseudo: for differences of binary scores (-100, 0, 100). Adds two items: half a win, half a loss and a tie (Agresti and Min
            2005), smaller if seeds average. Scores that agree everywhere then get an interval of some width, and few items the
            stated coverage.
    """
    n = items.size
    size = n + 2 if pseudo else n
    if pseudo:
        added = 100.0**2 * (sum(1 / len(rows) for rows in methods) / len(methods) if methods else 1.0)
        of_items = (float((items**2).sum()) + added - float(items.sum()) ** 2 / size) / size**2
    else:
        of_items = float(items.var(ddof=1)) / n
    variance, freedom = of_items, of_items**2 / (n - 1)
    several = [rows for rows in methods if len(rows) > 1]
    if several:
        single_seed = len(methods) - len(several)
        of_seeds = rest = 0.0
        for rows in several:
            count, weight = len(rows), 1 / len(rows) + single_seed
            means, left_over = (weight * value for value in _variances(rows))
            of_seeds += means
            rest += left_over / n
            of_seed = max(0.0, means - left_over / n)
            freedom += (of_seed + DOUBT[len(methods)] * (means - of_seed)) ** 2 / (count - 1)
        beyond = of_seeds - rest
        variance = max(of_seeds, of_items * BELOW, of_items + beyond * (1 if beyond > 0 else BELOW))
    return Spread(math.sqrt(variance), variance**2 / freedom if freedom > 0 else float(n - 1), n / size)


def mean_interval(values: np.ndarray, *, fixed: bool = False) -> tuple[float, float]:
    """The interval of the mean of values `[seeds, items]` from 0 to 100, of several seeds and at least two items.

    Binary values get Wilson's interval for the number of items that would have this error. It has a width at 0 and 100 too.
    """
    mean = float(values.mean())
    error = spread(values.mean(axis=0), [] if fixed else [values])
    if not np.isin(values, (0.0, 100.0)).all():
        low, high = error.interval(mean)
        return max(0.0, low), min(100.0, high)
    share, n = mean / 100, values.shape[1]
    size = share * (1 - share) / (error.error / 100) ** 2 if error.error > 0 else float(n)
    low, high = wilson_interval(share * size, size, quantile=error.quantile)
    return 100 * low, 100 * high


def _variances(rows: np.ndarray) -> tuple[float, float]:
    """Of values `[seeds, items]`: the variance of the means of the seeds, and the residual variance."""
    seeds, n = rows.shape
    means = rows.mean(axis=1)
    rest = rows - means[:, None] - rows.mean(axis=0) + rows.mean()
    return float(means.var(ddof=1)), float((rest**2).sum()) / ((seeds - 1) * (n - 1))

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
# The most degrees of freedom of a test among many, times those of the method with fewer seeds. A seed variance that happens to come out
# small makes Welch and Satterthwaite's too many. At 5 % that hardly shows; at a tenth of it, p-values are too small by half and more
# (tests/benchmarks/tuning_coverage.py, claims_false_alarms.py).
CAUTION = 3


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


@dataclass(frozen=True)
class SeedVariance:
    """One method's part of the variance: that of its seeds' means, what of that the rest explains, and the number of seeds."""

    means: float
    rest: float
    seeds: int


@dataclass(frozen=True)
class Components:
    """What the variance of a mean over seeds and items consists of.

    Attributes:
        items: s²(items)/n, which contains the rest. Of several tasks, of the mean over tasks.
        doubt: the sum over tasks of the square of this over n - 1, for degrees of freedom.
        seeds: of each method with several seeds.
        methods: how many methods there are, those with one seed included.
        freedom: n - 1, of all tasks together: the degrees of freedom where nothing varies.
    """

    items: float
    doubt: float
    seeds: tuple[SeedVariance, ...]
    methods: int
    freedom: int

    def spread(self, shrink: float = 1.0, *, cautious: bool = False) -> Spread:
        """The standard error and its degrees of freedom.

        Args:
            shrink: Of the estimate, by pseudo items.
            cautious: For levels far below 5 %, as corrections for many tests have them (`CAUTION`).
        """
        variance, freedom = self.items, self.doubt
        if self.seeds:
            of_seeds = rest = 0.0
            for part in self.seeds:
                of_seeds += part.means
                rest += part.rest
                of_seed = max(0.0, part.means - part.rest)
                weighed = of_seed + DOUBT[self.methods] * (part.means - of_seed)
                freedom += weighed**2 / (part.seeds - 1)
            beyond = of_seeds - rest
            variance = max(of_seeds, self.items * BELOW, self.items + beyond * (1 if beyond > 0 else BELOW))
        degrees = variance**2 / freedom if freedom > 0 else float(self.freedom)
        if cautious and self.seeds:
            degrees = min(degrees, CAUTION * (min(part.seeds for part in self.seeds) - 1))
        return Spread(math.sqrt(variance), degrees, shrink)

    def with_seeds(self, seeds: int) -> Components:
        """What would be expected with so many seeds of each method, and the same items."""
        scaled = tuple(
            SeedVariance(part.means * part.seeds / seeds, part.rest * part.seeds / seeds, seeds) for part in self.seeds
        )
        of_items = max(0.0, self.items - sum(part.rest for part in self.seeds))
        items = of_items + sum(part.rest for part in scaled)
        doubt = self.doubt * (items / self.items) ** 2 if self.items else 0.0
        return Components(items, doubt, scaled, self.methods, self.freedom)


@dataclass(frozen=True)
class Stratum:
    """One task: the means over seeds, or the differences of such means, `[items]`; and of each method its rows `[seeds, items]`."""

    items: np.ndarray
    methods: Sequence[np.ndarray]
    pseudo: bool = False


def spread(items: np.ndarray, methods: Sequence[np.ndarray], *, pseudo: bool = False, cautious: bool = False) -> Spread:
    """The error of the mean over items.

    If one of two methods has a single seed, it is assumed to vary as the other does. If no method has several seeds, the error is
    that of the items only.

    Args:
        items: `[items]`, the means over seeds, or the differences of such means.
        methods: `[seeds, items]` for each method. A model without seeds, like a given teacher, is left out.
        pseudo: for differences of binary scores (-100, 0, 100). Adds two items: half a win, half a loss and a tie (Agresti and Min
            2005), smaller if seeds average. Scores that agree everywhere then get an interval of some width, and few items the
            stated coverage.
        cautious: for p-values that are corrected for many tests (`CAUTION`).
    """
    stratum = Stratum(items, methods, pseudo)
    return components([stratum]).spread(shrink_of(stratum), cautious=cautious)


def shrink_of(stratum: Stratum) -> float:
    """The factor by which pseudo items shrink the mean of a task."""
    return stratum.items.size / (stratum.items.size + 2) if stratum.pseudo else 1.0


def components(tasks: Sequence[Stratum]) -> Components:
    """The components of the mean over tasks of the means over their items.

    Tasks are fixed: the mean is over these tasks and no others. A seed is one trained model on all of them, so its mean over the
    tasks is one observation, and what its scores on several tasks have in common is in the variance of the seeds.

    Args:
        tasks: with the same methods, and of each method the same seeds, in the same order.
    """
    share = 1 / len(tasks) ** 2
    items = doubt = 0.0
    for task in tasks:
        part = share * _of_items(task)
        items += part
        doubt += part**2 / (task.items.size - 1)
    number = len(tasks[0].methods)
    several = [index for index, rows in enumerate(tasks[0].methods) if len(rows) > 1]
    single_seed = number - len(several)
    found = []
    for index in several:
        rows = [task.methods[index] for task in tasks]
        seeds = len(rows[0])
        weight = 1 / seeds + single_seed
        means = weight * float(np.mean([each.mean(axis=1) for each in rows], axis=0).var(ddof=1))
        rest = sum(share * weight * _residual(each) / each.shape[1] for each in rows)
        found.append(SeedVariance(means, rest, seeds))
    freedom = sum(task.items.size - 1 for task in tasks)
    return Components(items, doubt, tuple(found), number, freedom)


def _of_items(task: Stratum) -> float:
    """The variance of a task's mean over items, seeds aside."""
    items, n = task.items, task.items.size
    if not task.pseudo:
        return float(items.var(ddof=1)) / n
    methods = task.methods
    size = n + 2
    added = 100.0**2 * (sum(1 / len(rows) for rows in methods) / len(methods) if methods else 1.0)
    return (float((items**2).sum()) + added - float(items.sum()) ** 2 / size) / size**2


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


def _residual(rows: np.ndarray) -> float:
    """The residual variance of values `[seeds, items]`."""
    seeds, n = rows.shape
    rest = rows - rows.mean(axis=1)[:, None] - rows.mean(axis=0) + rows.mean()
    return float((rest**2).sum()) / ((seeds - 1) * (n - 1))

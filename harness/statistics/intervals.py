"""Means and their uncertainty: pure functions over arrays, in the units of their input."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit  # Student's quantile, without the second that scipy.stats takes to load

RESAMPLES = 10_000
CONFIDENCE = 0.95
# Indices drawn at a time, so that the bootstrap of a large set stays small in memory.
_BLOCK = 4_000_000


def mean_and_error(values: ArrayLike) -> tuple[float, float | None]:
    """The mean of values `[n]` and its standard error, s/√n with s from n-1; None for one value. ValueError without values."""
    array = _array(values)
    error = float(array.std(ddof=1)) / math.sqrt(array.size) if array.size > 1 else None
    return float(array.mean()), error


def wilson_interval(successes: float, n: float, *, quantile: float | None = None) -> tuple[float, float]:
    """Wilson's score interval of a proportion, from 0 to 1 (Wilson 1927).

    Unlike the mean ± 1.96 standard errors, it stays between 0 and 1 and has a width at 0 of n and n of n.

    Args:
        successes: how many; need not be whole.
        n: the number of trials. Dependent trials count as the smaller number of independent ones with the same error.
        quantile: of Student's t, instead of the normal quantile.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n}")
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) if quantile is None else quantile
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the two terms cancel exactly; rounding must not lead past them.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def clustered_wilson_interval(share: float, error: float, problems: int, samples: int) -> tuple[float, float]:
    """Wilson's interval of a mean of rates, each over the samples of one problem; all from 0 to 1.

    k samples of 30 problems are 30 problems: the samples of one problem depend on each other. Their number is replaced by that of
    independent trials which would have the standard error that the problems show (the effective sample size of survey statistics,
    Korn and Graubard 1998), and the normal quantile by Student's. At 0 and 1, where problems show no spread, each is one trial.
    tests/benchmarks/samples_coverage.py compares its coverage with that of the bootstrap.

    Args:
        share: the mean over the problems.
        error: its standard error over the problems.
        problems: how many.
        samples: of all problems together; there are never more independent trials.
    """
    spread = share * (1 - share)
    without_error = problems if spread <= 0 else samples
    trials = min(spread / error**2, float(samples)) if spread > 0 < error else float(without_error)
    quantile = float(stdtrit(problems - 1, (1 + CONFIDENCE) / 2)) if problems > 1 else None
    return wilson_interval(share * trials, trials, quantile=quantile)


def weighted_mean_and_error(values: ArrayLike, weights: ArrayLike) -> tuple[float, float | None]:
    """The mean of values `[n]` with weights `[n]`, and its standard error as a ratio of two means; None for one value.

    The weights vary from problem to problem as the values do, so the error is that of the residuals (Cochran 1977, section 2.11).
    """
    value, weight = _array(values), _array(weights)
    mean = float((value * weight).sum() / weight.sum())
    if value.size == 1:
        return mean, None
    residuals = weight * (value - mean) / weight.mean()
    return mean, math.sqrt(float((residuals**2).sum()) / (value.size * (value.size - 1)))


def bootstrap_interval(values: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean of independent values `[n]` (Efron 1979).

    Equal seeds give equal intervals. Equal values give an interval without width. ValueError for fewer than two values.
    """
    array = _array(values)
    return _percentiles(array.size, lambda drawn: array[drawn].mean(axis=1), seed, resamples)


def bootstrap_ratio_interval(
    sums: ArrayLike, counts: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The percentile bootstrap interval of Σ sums / Σ counts over independent items, both `[n]`: of a mean over their tokens.

    Items are drawn, not tokens, as the tokens of one item depend on each other. Draws without anything counted are left out.
    ValueError for fewer than two items.
    """
    total, count = _array(sums), _array(counts)

    def ratios(drawn: NDArray[np.int64]) -> NDArray[np.float64]:
        counted = count[drawn].sum(axis=1)
        return np.where(counted > 0, total[drawn].sum(axis=1) / np.maximum(counted, 1e-300), np.nan)

    return _percentiles(total.size, ratios, seed, resamples)


def _percentiles(
    items: int, statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], seed: int, resamples: int
) -> tuple[float, float]:
    """The interval of a statistic [draws] of items that are drawn with replacement [draws, items]; draws that give nan are left out."""
    if items == 1:
        raise ValueError("one value has no spread")
    random = np.random.default_rng(seed)
    found = np.empty(resamples)
    block = max(1, _BLOCK // items)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        found[start : start + size] = statistic(random.integers(0, items, (size, items)))
    low, high = np.nanquantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def pass_at_k(n: int, correct: int, k: int) -> float | None:
    """The probability, from 0 to 1, that one of k samples is correct, estimated from n samples.

    1 - C(n-c, k) / C(n, k), the unbiased estimator of the Codex paper (Chen et al. 2021, equation 1). None if n < k.
    """
    if not 0 <= correct <= n or k < 1:
        raise ValueError(f"{correct} correct of {n} samples, k = {k}")
    if n < k:
        return None
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1 - k / i for i in range(n - correct + 1, n + 1))


def _array(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values of shape {array.shape}: expected [n] with n > 0")
    return array

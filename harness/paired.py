"""Two methods on the same items: the difference of their means, its interval, and how likely chance alone makes it.

One seed each: the question is whether these two *models* differ, over items like these. Several seeds: whether the *methods*
differ, over further seeds and items; a seed's mean is one draw, however many items measured it.

Scores are Y[s, i] = mean + seed[s] + item[i] + rest[s, i], seed and rest of each method by themselves, items shared. So

    Var(difference) = seeds + items - rest, where
    seeds = s²(seed means of a)/S_a + s²(seed means of b)/S_b
    items = s²(item differences of the means over seeds)/n
    rest  = s²(rest of a)/(S_a n) + s²(rest of b)/(S_b n)

The first two both hold the rest, so it is taken out once (two-way analysis of variance). The quantile is Student's with the degrees
of freedom of Welch and Satterthwaite: three seeds tell their spread badly, and a bootstrap over so few is too narrow
(tests/benchmarks/statistics_coverage.py has the coverage of both). Seeds of the two methods are taken as independent; where equal
numbers make them alike, the interval is wider than it need be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dskd.errors import InputError
from harness.item_scores import ItemScores, Kind
from harness.statistics import CONFIDENCE, RESAMPLES, bootstrap_interval

POWER = 0.8
# Sign flips at a time, so that large sets stay small in memory.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """a - b in points over `n_items` shared items. `p_value` is two-sided, `p_less` that of a < b alone.

    `mde80`: the smallest true difference that such a comparison finds (p < 0.05, two-sided) in 80 % of cases. `n_seeds`: those of
    the method with fewer. `n_excluded`: items that only one of the two has, or that lack a score in a seed; `n_prompts_differ`:
    items left out because the two were asked differently.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float
    p_less: float
    n_items: int
    n_seeds: int
    method: str
    mde80: float
    n_excluded: int = 0
    n_prompts_differ: int = 0


def compare(a: ItemScores, b: ItemScores, kind: Kind, *, seed: int = 0, same_prompts: bool = True) -> Comparison:
    """Compare two methods on the items that both were asked in the same words (unless `same_prompts` is false: by id alone).

    One seed each: McNemar's exact test and Agresti and Min's interval (binary); a sign-flip permutation test and the percentile
    bootstrap (continuous). Several seeds on one side at least: Student's t over seeds and items. `seed` is that of the two random
    procedures. InputError where fewer than two items can be compared.
    """
    left, right, excluded, differ = _shared(a, b, same_prompts)
    n = left.shape[1]
    if n < 2:
        raise InputError(
            f"{n} items in common ({excluded} in one alone or without score, {differ} asked in other words); "
            "fix: compare evaluations of the same task, version and template"
        )
    if kind == "binary" and not (np.isin(left, (0, 100)).all() and np.isin(right, (0, 100)).all()):
        kind = "continuous"  # means over several samples
    items = left.mean(axis=0) - right.mean(axis=0)
    spread = _Spread.of(left, right, items, a.fixed, b.fixed, pseudo=kind == "binary")
    difference = float(items.mean())
    if len(left) == len(right) == 1:
        if kind == "binary":
            p_value, p_less = mcnemar(items)
            interval, method = spread.interval(difference), "McNemar's exact test; one seed"
        else:
            p_value, p_less = sign_flip(items, seed=seed)
            interval, method = bootstrap_interval(items, seed=seed), "sign-flip permutation test; one seed"
    else:
        p_value, p_less = spread.p_values(difference)
        interval, method = (
            spread.interval(difference),
            f"t over seeds and items, {spread.freedom:.1f} degrees of freedom",
        )
    low, high = (min(100.0, max(-100.0, end)) for end in interval)
    seeds = min(len(rows) for rows, fixed in ((left, a.fixed), (right, b.fixed)) if not fixed or a.fixed == b.fixed)
    return Comparison(difference, (low, high), p_value, p_less, n, seeds, method, spread.detectable(), excluded, differ)


def mcnemar(items: np.ndarray) -> tuple[float, float]:
    """McNemar's exact test of differences that are -100, 0 or 100: p two-sided, and of a < b. Ties say nothing."""
    from scipy.stats import binomtest

    better, worse = int((items > 0).sum()), int((items < 0).sum())
    if better + worse == 0:
        return 1.0, 1.0
    return (
        float(binomtest(better, better + worse).pvalue),
        float(binomtest(better, better + worse, alternative="less").pvalue),
    )


def sign_flip(items: np.ndarray, *, seed: int = 0, flips: int = RESAMPLES - 1) -> tuple[float, float]:
    """Permutation test of differences [n] whose signs chance alone sets: p two-sided (twice the smaller side), and of a < b.

    All flips where they are no more than `flips`, otherwise that many random ones and the observed. What
    `scipy.stats.permutation_test` with "samples" gives, many times faster: a leaderboard makes hundreds of these tests.
    """
    moved = items[items != 0]  # ties add nothing, whatever their sign
    n = moved.size
    if n == 0:
        return 1.0, 1.0
    everything = n < 63 and 2**n <= flips + 1
    if everything:
        bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        sums = (1.0 - 2.0 * bits) @ moved
    else:
        random = np.random.default_rng(seed)
        block = max(1, _BLOCK // n)
        sums = np.concatenate(
            [_signs(random, min(block, flips - start), n) @ moved for start in range(0, flips, block)]
        )
    observed, added = moved.sum(), 0 if everything else 1
    slack = 1e-9 * np.abs(moved).sum()  # sums that are equal but for rounding
    less = (int((sums <= observed + slack).sum()) + added) / (sums.size + added)
    greater = (int((sums >= observed - slack).sum()) + added) / (sums.size + added)
    return min(1.0, 2 * min(less, greater)), less


def _signs(random: np.random.Generator, rows: int, n: int) -> np.ndarray:
    """Random signs [rows, n], a bit each."""
    raw = np.frombuffer(random.bytes(rows * ((n + 7) // 8)), dtype=np.uint8).reshape(rows, -1)
    return 1.0 - 2.0 * np.unpackbits(raw, axis=1, count=n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given: any below α is a finding with a family-wise error rate of α."""
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = floor
    return adjusted


@dataclass(frozen=True)
class _Spread:
    """Standard error of a difference, its degrees of freedom, and how far its centre is drawn to 0."""

    error: float
    freedom: float
    shrink: float

    @classmethod
    def of(
        cls,
        left: np.ndarray,
        right: np.ndarray,
        items: np.ndarray,
        left_fixed: bool,
        right_fixed: bool,
        *,
        pseudo: bool,
    ) -> _Spread:
        """From two arrays [seeds, items] and the differences [items] of their means over seeds.

        `pseudo`: two items more, half a win, half a loss and a tie (Agresti and Min 2005). It gives binary scores that agree
        everywhere an interval of some width, and their interval its coverage.
        """
        n = items.size
        added = 2 if pseudo else 0
        squares = float((items**2).sum()) + (100.0**2 if pseudo else 0.0)
        size = n + added
        of_items = max(0.0, squares - float(items.sum()) ** 2 / size) / (size * (size if pseudo else size - 1))
        seeds = [(rows, fixed) for rows, fixed in ((left, left_fixed), (right, right_fixed)) if not fixed]
        several = [rows for rows, _ in seeds if len(rows) > 1]
        variance, freedom = of_items, of_items**2 / (n - 1)
        if several:
            parts = [_seed_variance(rows) for rows in several]
            # Where one method has a single seed, it is taken to spread as the other does.
            alone = len(seeds) - len(several)
            weights = [1 / count + alone for count, _, _ in parts]
            of_seeds = sum(weight * means for weight, (_, means, _) in zip(weights, parts, strict=True))
            rest = sum(weight * left_over / n for weight, (_, _, left_over) in zip(weights, parts, strict=True))
            variance = max(of_seeds, of_items, of_seeds + of_items - rest)
            freedom += sum(
                (weight * means) ** 2 / (count - 1) for weight, (count, means, _) in zip(weights, parts, strict=True)
            )
        return cls(math.sqrt(variance), variance**2 / freedom if freedom > 0 else float(n - 1), n / size)

    def interval(self, difference: float) -> tuple[float, float]:
        from scipy.stats import t

        half = float(t.ppf((1 + CONFIDENCE) / 2, self.freedom)) * self.error
        return difference * self.shrink - half, difference * self.shrink + half

    def p_values(self, difference: float) -> tuple[float, float]:
        from scipy.stats import t

        if self.error == 0:
            return (1.0, 1.0) if difference == 0 else (0.0, float(difference > 0))
        ratio = difference * self.shrink / self.error
        return float(2 * t.sf(abs(ratio), self.freedom)), float(t.cdf(ratio, self.freedom))

    def detectable(self) -> float:
        """The difference that is found with the power asked for."""
        from scipy.stats import t

        return float(t.ppf((1 + CONFIDENCE) / 2, self.freedom) + t.ppf(POWER, self.freedom)) * self.error


def _seed_variance(rows: np.ndarray) -> tuple[int, float, float]:
    """Of values [seeds, items]: the seeds, the variance of their means, and that of what neither seed nor item explains."""
    seeds, n = rows.shape
    means = rows.mean(axis=1)
    rest = rows - means[:, None] - rows.mean(axis=0) + rows.mean()
    return seeds, float(means.var(ddof=1)), float((rest**2).sum()) / ((seeds - 1) * (n - 1))


def _shared(a: ItemScores, b: ItemScores, same_prompts: bool) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Values [seeds, items] of both on the shared items; how many were left out, and how many of different prompts."""
    places = {identifier: number for number, identifier in enumerate(b.ids)}
    pairs = [(number, places[identifier]) for number, identifier in enumerate(a.ids) if identifier in places]
    excluded = len(a.ids) + len(b.ids) - 2 * len(pairs)
    differ = 0
    if same_prompts and a.prompts and b.prompts:
        alike = [(i, j) for i, j in pairs if a.prompts[i] == b.prompts[j]]
        pairs, differ = alike, len(pairs) - len(alike)
    left = a.values[:, [i for i, _ in pairs]]
    right = b.values[:, [j for _, j in pairs]]
    scored = ~(np.isnan(left).any(axis=0) | np.isnan(right).any(axis=0))
    return left[:, scored], right[:, scored], excluded + int((~scored).sum()), differ

"""Two methods on the same items: the difference of their means, its interval, and how likely chance alone makes it.

One seed each: the question is whether these two *models* differ, over items like these. Several seeds: whether the *methods*
differ, over further seeds and items; a seed's mean is one draw, however many items measured it.

The error of several seeds is that of harness/statistics/variance_components.py. Seeds of the two methods are taken as independent; where equal numbers make
them alike, the interval is wider than it need be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dskd.errors import InputError
from harness.results.item_scores import ItemScores, Kind
from harness.statistics.intervals import RESAMPLES, bootstrap_interval
from harness.statistics.variance_components import spread

# Sign flips at a time, so that large sets stay small in memory.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Comparison:
    """a - b in points over `n_items` shared items. `p_value` is two-sided, `p_less` that of a < b alone.

    `mde80`: the smallest true difference that such a comparison finds (p < 0.05, two-sided) in 80 % of cases. `n_seeds`: those of
    the method with fewer. `n_excluded`: items that only one of the two has, or that lack a score in a seed; `n_prompts_differ`:
    items left out because the two were asked differently. `mean_a` and `mean_b` are over the shared items.
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
    mean_a: float = 0.0
    mean_b: float = 0.0


def compare(
    a: ItemScores, b: ItemScores, kind: Kind, *, seed: int = 0, same_prompts: bool = True, resamples: int = RESAMPLES
) -> Comparison:
    """Compare two methods on the items that both were asked in the same words (unless `same_prompts` is false: by id alone).

    One seed each: McNemar's exact test and Agresti and Min's interval (binary); a sign-flip permutation test and the percentile
    bootstrap (continuous). Several seeds on one side at least: Student's t over seeds and items. `seed` and
    `resamples` are those of the two random procedures. InputError where fewer than two items can be compared.
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
    trained = [rows for rows, fixed in ((left, a.fixed), (right, b.fixed)) if not fixed]
    error = spread(items, trained, pseudo=kind == "binary")
    difference = float(items.mean())
    detectable = error.detectable()
    if len(left) > 1 or len(right) > 1:
        method = f"t over seeds and items, {error.freedom:.1f} degrees of freedom"
        (p_value, p_less), interval = error.p_values(difference), error.interval(difference)
    elif kind == "binary":
        method = "McNemar's exact test; one seed"
        (p_value, p_less), interval = mcnemar(items), error.interval(difference)
        detectable += 100 / n  # an exact test needs about one item more than the normal approximation
    else:
        method = "sign-flip permutation test; one seed"
        p_value, p_less = sign_flip(items, seed=seed, flips=resamples - 1)
        interval = bootstrap_interval(items, seed=seed, resamples=resamples)
    low, high = (min(100.0, max(-100.0, end)) for end in interval)
    seeds = min((len(rows) for rows in trained), default=1)
    return Comparison(
        difference,
        (low, high),
        p_value,
        p_less,
        n,
        seeds,
        method,
        detectable,
        excluded,
        differ,
        float(left.mean()),
        float(right.mean()),
    )


def mean_difference(a: ItemScores, b: ItemScores, *, same_prompts: bool = True) -> float:
    """The difference alone, as `compare` gives it. InputError where nothing can be compared."""
    left, right, _, _ = _shared(a, b, same_prompts)
    if left.shape[1] == 0:
        raise InputError("no items in common; fix: compare evaluations of the same task, version and template")
    return float((left.mean(axis=0) - right.mean(axis=0)).mean())


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
    if len(p_values) == 0:
        return []
    from statsmodels.stats.multitest import multipletests  # here, because it takes a second

    return [float(value) for value in multipletests(p_values, method="holm")[1]]


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

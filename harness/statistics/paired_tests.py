"""Compares two methods on the same items: the difference of their means, its interval and its p-value.

With one seed each, the test asks whether these two *models* differ on items like these. With several seeds, it asks whether the
*methods* differ, over further seeds and items: the mean of a seed is one observation, however many items it has.

The error of several seeds comes from variance_components.py. The seeds of the two methods count as independent. If equal seed numbers
make them alike, the interval is wider than necessary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dskd.errors import InputError
from harness.results.item_scores import ItemScores, Kind, common_kind
from harness.statistics.intervals import RESAMPLES, bootstrap_interval
from harness.statistics.variance_components import spread

# Sign flips at a time, so that large sets stay small in memory.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class PairedComparison:
    """The difference a - b of the means over the shared items, in points.

    `min_detectable_effect` is the smallest true difference that such a comparison finds (p < 0.05, two-sided) in 80 % of cases.
    """

    difference: float
    ci95: tuple[float, float]
    p_value: float  # two-sided
    p_less: float  # one-sided, for a < b
    p_value_of_many: float  # both again, for Holm's correction: of several seeds with cautious degrees of freedom
    p_less_of_many: float
    n_items: int
    n_seeds: int  # of the method with fewer seeds
    method: str  # the name of the test
    min_detectable_effect: float
    n_excluded: int  # items that only one side has, or that lack a score in a seed
    n_prompts_differ: int  # items left out because of different prompts
    mean_a: float
    mean_b: float


def compare(
    a: ItemScores,
    b: ItemScores,
    kind: Kind | None = None,
    *,
    seed: int = 0,
    same_prompts: bool = True,
    resamples: int = RESAMPLES,
) -> PairedComparison:
    """Compare two methods on the items that both have.

    With one seed each: McNemar's exact test with Agresti and Min's interval (binary), or a sign-flip permutation test with the
    percentile bootstrap (continuous). With several seeds on at least one side: Student's t over seeds and items.

    Args:
        a: scores of one method.
        b: scores of the other method.
        kind: of the scores; binary if both are, unless given.
        seed: for the permutation test and the bootstrap.
        same_prompts: leave out items with different prompts.
        resamples: of the permutation test and the bootstrap.

    Raises:
        InputError: fewer than two items can be compared.
    """
    kind = kind or common_kind(a, b)
    left, right, excluded, differ = shared_rows(a, b, same_prompts)
    n = left.shape[1]
    if n < 2:
        raise InputError(
            f"{n} items in common ({excluded} on one side only or without score, {differ} with different prompts); "
            "fix: compare evaluations of the same task, version and template"
        )
    # Means over several samples are not binary.
    binary = kind == "binary" and np.isin(left, (0, 100)).all() and np.isin(right, (0, 100)).all()
    items = left.mean(axis=0) - right.mean(axis=0)
    trained = [rows for rows, fixed in ((left, a.fixed), (right, b.fixed)) if not fixed]
    error = spread(items, trained, pseudo=bool(binary))
    difference = float(items.mean())
    effect = error.min_detectable_effect()
    if len(left) > 1 or len(right) > 1:
        method = f"t over seeds and items, {error.freedom:.1f} degrees of freedom"
        interval = error.interval(difference)
        alone = error.p_values(difference)
        of_many = spread(items, trained, pseudo=bool(binary), cautious=True).p_values(difference)
    elif binary:
        method = "McNemar's exact test; one seed"
        interval = error.interval(difference)
        of_many = alone = mcnemar(items)
        effect += 100 / n  # an exact test needs about one item more than the normal approximation
    else:
        method = "sign-flip permutation test; one seed"
        interval = bootstrap_interval(items, seed=seed, resamples=resamples)
        of_many = alone = sign_flip(items, seed=seed, flips=resamples - 1)
    low, high = (min(100.0, max(-100.0, end)) for end in interval)
    seeds, means = min((len(rows) for rows in trained), default=1), (float(left.mean()), float(right.mean()))
    tested = (difference, (low, high), *alone, *of_many, n, seeds, method, effect)
    return PairedComparison(*tested, excluded, differ, *means)


def mean_difference(a: ItemScores, b: ItemScores) -> float:
    """The difference only, as in `compare`. InputError if no items can be compared."""
    left, right, _, _ = shared_rows(a, b, same_prompts=True)
    if left.shape[1] == 0:
        raise InputError("no items in common; fix: compare evaluations of the same task, version and template")
    return float((left.mean(axis=0) - right.mean(axis=0)).mean())


def mcnemar(items: np.ndarray) -> tuple[float, float]:
    """McNemar's exact test of differences `[items]` of -100, 0 or 100: the p-values two-sided and for a < b. Ties do not count."""
    from scipy.stats import binomtest

    better, worse = int((items > 0).sum()), int((items < 0).sum())
    if better + worse == 0:
        return 1.0, 1.0
    two_sided, less = (binomtest(better, better + worse, alternative=side) for side in ("two-sided", "less"))
    return float(two_sided.pvalue), float(less.pvalue)


def sign_flip(items: np.ndarray, *, seed: int = 0, flips: int = RESAMPLES - 1) -> tuple[float, float]:
    """Sign-flip permutation test of differences `[items]`: the p-values two-sided (twice the smaller side) and for a < b.

    Uses all sign flips if there are at most `flips`, otherwise so many random ones and the observed. Equal to
    `scipy.stats.permutation_test` with "samples" and much faster: a leaderboard makes hundreds of these tests.
    """
    moved = items[items != 0]  # ties add nothing, whatever their sign
    n = moved.size
    if n == 0:
        return 1.0, 1.0
    if everything := n < 63 and 2**n <= flips + 1:
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
    """Random signs `[rows, n]`, from one bit each."""
    raw = np.frombuffer(random.bytes(rows * ((n + 7) // 8)), dtype=np.uint8).reshape(rows, -1)
    return 1.0 - 2.0 * np.unpackbits(raw, axis=1, count=n)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the given order. Rejecting those below α has a family-wise error rate of α.

    Those of statsmodels' `multipletests`, which takes a second to load and collects all garbage of the process at every call: a tenth
    of a second or more, and tables make hundreds of calls.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1)))
    return [float(value) for value in adjusted]


def holm_of(comparisons: Sequence[PairedComparison], *, less: bool = False) -> list[float]:
    """Holm's adjusted p-values of a family of comparisons, two-sided or for a < b. One alone has nothing to adjust."""
    if len(comparisons) == 1:
        return [each.p_less if less else each.p_value for each in comparisons]
    return holm([each.p_less_of_many if less else each.p_value_of_many for each in comparisons])


def holm_levels(p_values: Sequence[float], level: float) -> list[float]:
    """The level at which Holm's procedure tests each of these p-values, in the given order.

    The intervals at these levels say the same as the adjusted p-values: one leaves out its null value where the test rejects it.
    What is not rejected is tested at the level at which the procedure stops.
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted = holm(p_values)
    rejected = sum(value < level for value in adjusted)
    ranks = {place: rank for rank, place in enumerate(order)}
    return [level / (len(p_values) - min(ranks[place], rejected, len(p_values) - 1)) for place in range(len(p_values))]


def shared_rows(a: ItemScores, b: ItemScores, same_prompts: bool = True) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Values `[seeds, items]` of both on the shared items, the number of items left out, and of those with different prompts."""
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

"""Compares two methods on several tasks at once: the mean over tasks of the difference on shared items.

The tasks are fixed, each with the same weight, however many items it has: the mean is over these tasks, and says nothing of others.
A seed is one trained model on all tasks, so its mean over the tasks is one observation (variance_components.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from dskd.errors import InputError
from harness.results.item_scores import ItemScores, common_kind
from harness.statistics.intervals import CONFIDENCE
from harness.statistics.paired_tests import shared_rows
from harness.statistics.variance_components import POWER, Components, Spread, Stratum, components, shrink_of

# No more are looked for: beyond, other ways to a smaller error are cheaper.
MOST_SEEDS = 100

Outcome = Literal["holds", "fails"]


@dataclass(frozen=True)
class TaskScores:
    """The scores of two methods on one task, each over its seeds."""

    title: str
    a: ItemScores
    b: ItemScores
    higher_is_better: bool = True


@dataclass(frozen=True)
class TaskDifference:
    """The difference on one task, in points; above 0 the first method is better."""

    title: str
    difference: float
    ci95: tuple[float, float]
    items: int


@dataclass(frozen=True)
class JoinedDifference:
    """The mean over tasks of the difference a - b, in points; above 0 the first method is better.

    Attributes:
        difference: as measured.
        centre: of intervals and tests; of binary scores a little nearer to 0 (`pseudo` of variance_components.spread).
        components: of its variance.
        seeds: of the two methods.
        excluded: items that only one side has, without a score, or with other prompts.
        tasks: the difference on each.
    """

    difference: float
    centre: float
    components: Components
    seeds: tuple[int, int]
    excluded: int
    tasks: tuple[TaskDifference, ...]

    @property
    def spread(self) -> Spread:
        """The error of `centre`, with degrees of freedom for the small levels of a correction."""
        return self.components.spread(cautious=True)

    def interval(self, level: float = 1 - CONFIDENCE) -> tuple[float, float]:
        """The interval that misses the truth in a share `level` of cases."""
        error = self.spread
        half = float(stdtrit(error.freedom, 1 - level / 2)) * error.error
        return max(-100.0, self.centre - half), min(100.0, self.centre + half)


def join(tasks: Sequence[TaskScores]) -> JoinedDifference:
    """The mean difference of two methods over tasks.

    Of each method the seeds count that have all tasks.

    Args:
        tasks: one or more.

    Raises:
        InputError: where a task has fewer than two items that can be compared, or a method no seed with all tasks.
    """
    strata, found, excluded = [], [], 0
    kept = [_common_seeds([getattr(task, side) for task in tasks]) for side in ("a", "b")]
    for task in tasks:
        left, right, out, differ = shared_rows(_rows_of(task.a, kept[0]), _rows_of(task.b, kept[1]))
        if left.shape[1] < 2:
            raise InputError(
                f"{task.title}: {left.shape[1]} items in common ({out} on one side only or without score, {differ} with "
                "different prompts); fix: compare evaluations of the same task, version and template"
            )
        if not task.higher_is_better:
            left, right = -left, -right
        binary = common_kind(task.a, task.b) == "binary"
        stratum = Stratum(left.mean(axis=0) - right.mean(axis=0), (left, right), pseudo=binary)
        shrink, mean = shrink_of(stratum), float(stratum.items.mean())
        low, high = components([stratum]).spread(shrink, cautious=True).interval(mean)
        found.append(TaskDifference(task.title, mean, (max(-100.0, low), min(100.0, high)), left.shape[1]))
        strata.append((stratum, shrink * mean))
        excluded += out + differ
    return JoinedDifference(
        difference=sum(each.difference for each in found) / len(found),
        centre=sum(centre for _, centre in strata) / len(strata),
        components=components([stratum for stratum, _ in strata]),
        seeds=(len(kept[0]), len(kept[1])),
        excluded=excluded,
        tasks=tuple(found),
    )


def better_than(joined: JoinedDifference, margin: float = 0.0) -> tuple[float, Outcome]:
    """Whether the true difference is above `margin`, by a two-sided test against the margin itself.

    Returns:
        The p-value, and what a small one says.
    """
    error, beyond = joined.spread, joined.centre - margin
    p_value, _ = Spread(error.error, error.freedom).p_values(beyond)
    return p_value, "holds" if beyond > 0 else "fails"


def as_good_as(joined: JoinedDifference, margin: float) -> tuple[float, Outcome]:
    """Whether the true difference is within `margin` of 0, by two one-sided tests (Schuirmann 1987).

    Outside of the margin the p-value is that of a two-sided test against the nearer end, which can say that it fails.

    Returns:
        The p-value, and what a small one says.
    """
    error, away = joined.spread, abs(joined.centre) - margin
    if error.error == 0:
        return (0.0 if away else 1.0), "holds" if away < 0 else "fails"
    if away >= 0:
        return float(2 * stdtr(error.freedom, -away / error.error)), "fails"
    # The larger of the two one-sided p-values is that of the nearer end.
    return float(stdtr(error.freedom, away / error.error)), "holds"


def seeds_needed(joined: JoinedDifference, distance: float, level: float, *, within: bool = False) -> int | None:
    """The seeds of each method that a test at `level` needs for 80 % power, were the true difference the observed one.

    Args:
        joined: of at least two seeds of each method, which say how much seeds vary.
        distance: of the observed difference from the nearest margin.
        level: of the test, two-sided.
        within: for two one-sided tests, one-sided at `level`, where both ends of the margin are about as far.

    Returns:
        A number up to MOST_SEEDS; None if that many do not suffice.
    """

    def enough(number: int) -> bool:
        error = joined.components.with_seeds(number).spread(cautious=True)
        critical = stdtrit(error.freedom, 1 - (level if within else level / 2))
        # Both ends must be left out, so half of the misses may be at either.
        reserve = ndtri(1 - (1 - POWER) / 2) if within else stdtrit(error.freedom, POWER)
        return bool((critical + reserve) * error.error <= distance)

    numbers = range(2, MOST_SEEDS + 1)
    place = bisect_left(numbers, True, key=enough)
    return numbers[place] if place < len(numbers) else None


def error_of_items(joined: JoinedDifference) -> float:
    """The standard error that is left however many seeds there are: that of the test items."""
    rest = sum(part.rest for part in joined.components.seeds)
    return float(np.sqrt(max(0.0, joined.components.items - rest)))


def _common_seeds(scores: Sequence[ItemScores]) -> tuple[int, ...]:
    common = tuple(seed for seed in scores[0].seeds if all(seed in each.seeds for each in scores))
    if not common:
        raise InputError("no seed has all tasks; fix: evaluate every seed on every task")
    return common


def _rows_of(scores: ItemScores, seeds: Sequence[int]) -> ItemScores:
    """The scores of these seeds, in this order."""
    rows = scores.values[[scores.seeds.index(seed) for seed in seeds]]
    return ItemScores(scores.ids, tuple(seeds), rows, scores.prompts, scores.fixed)

"""Tuning as `harness/tuning` does it, on arrays of many simulated runs at once, and the tests that follow.

Shapes: G draws of validation and test items, R tuning seeds of each, N trials, S training seeds, T tasks, n items.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.statistics.paired_tests import holm
from harness.statistics.variance_components import Spread, spread
from harness.tuning.rungs import rungs
from helpers.tuning_world import TEACHER, TRIAL_SEED, Array, Method, taken, truth

ALPHA = 0.05


def choose(method: Method, items: Array) -> tuple[Array, Array]:
    """Tune a method whose trials are trained with `TRIAL_SEED`.

    Args:
        method: With G × R tuning runs.
        items: `[G, R, N, T, n]`, by which trials are compared.

    Returns:
        The chosen trial `[G, R]`, and its scores `[G, R, T]` on these items.
    """

    def score(share: float, kept: Array) -> Array:
        return method.answers(taken(items, kept), kept, (TRIAL_SEED,), share)[:, :, :, 0].mean(
            axis=-1, dtype=np.float64
        )

    return choose_by(score, items.shape[:2], method.scenario.trials, halving=method.scenario.halving)


def choose_by(
    score: Callable[[float, Array], Array], runs: tuple[int, ...], trials: int, *, halving: bool
) -> tuple[Array, Array]:
    """Rungs, rule and ties of `harness/tuning`, for many runs at once.

    Args:
        score: Of a share of the steps and the trials `[*runs, k]` that are trained so far: their scores `[*runs, k, T]`.
        runs: The shape of the runs.
        trials: Of each run.
        halving: Whether worse trials are dropped early.

    Returns:
        The chosen trial `[*runs]`, and its last scores `[*runs, T]`.
    """
    teacher = truth(TEACHER, 0.0)
    kept = np.broadcast_to(np.arange(trials), (*runs, trials))
    steps = rungs(trials, halving=halving)
    for number, rung in enumerate(steps):
        scores = score(rung.share, kept)
        values = np.round((100 * scores / teacher).mean(axis=-1), 6)
        best_first = np.lexsort((kept, -values), axis=-1)
        best = np.take_along_axis(scores, best_first[..., :1, None], axis=-2)[..., 0, :]
        keep = steps[number + 1].trials if number + 1 < len(steps) else 1
        kept = np.take_along_axis(kept, best_first[..., :keep], axis=-1)
    return kept[..., 0], best


@dataclass(frozen=True)
class Tested:
    """The comparison of two methods that `harness compare` makes of several seeds, and the same test of any other true difference."""

    difference: float
    error: Spread
    error_of_many: Spread  # for Holm's correction

    def covers(self, true: float) -> bool:
        """Whether the interval has this difference in it."""
        low, high = self.error.interval(self.difference)
        return low <= true <= high

    def p_value(self, true: float = 0.0) -> float:
        """Two-sided, under this true difference, for Holm's correction."""
        return self.error_of_many.p_values(self.difference - true / self.error_of_many.shrink)[0]

    @property
    def half_width(self) -> float:
        """Of the interval."""
        return self.error.quantile * self.error.error


def comparison(a: Array, b: Array, *, binary: bool) -> Tested:
    """As `harness.statistics.paired_tests.compare` tests values `[S, n]` of several seeds."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    items = a.mean(axis=0) - b.mean(axis=0)
    errors = (spread(items, [a, b], pseudo=binary, cautious=cautious) for cautious in (False, True))
    return Tested(float(items.mean()), *errors)


def any_rejected(p_values: list[float]) -> bool:
    """Whether Holm's procedure over a family rejects anything."""
    return min(holm(p_values)) < ALPHA

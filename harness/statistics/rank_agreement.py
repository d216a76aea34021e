"""How far two rankings of the same methods agree: Kendall's τ-b, its bootstrap interval, and what noise alone would leave of it.

τ is the share of pairs of methods that both rankings order alike, less the share that they order otherwise: 1 for the same order, 0 for
unrelated ones, -1 for the reverse. τ-b divides by the pairs that are not tied (Kendall 1945). Scores are noisy, so rankings that are
truly the same agree less than fully. Two seeds of the same setting show by how much: that is what a change is to be compared with.

The interval resamples items (the same for all methods) and, for each method, its seeds. Resampling adds the noise of the scores once
more, so the interval lies low rather than high: it is a cautious answer to "do they agree?".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from harness.statistics.intervals import CONFIDENCE

DRAWS = 2000

# Scores of each task: of each method an array [seeds, items].
TaskScores = Sequence[Sequence[np.ndarray]]


@dataclass(frozen=True)
class RankAgreement:
    """How far two rankings agree.

    Attributes:
        tau: Of the means over seeds; None where one side ties all methods.
        ci95: Its interval; None where τ is None.
        across: The mean τ between single seeds, one of each side, which are not the same.
        within: The mean τ between two seeds of the same side: what `across` would be if the sides ranked alike. Both None for one seed.
    """

    tau: float | None
    ci95: tuple[float, float] | None
    across: float | None
    within: float | None


def kendall(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's τ-b of scores [..., methods] over the last axis; NaN where all are tied."""
    i, j = np.triu_indices(a.shape[-1], 1)
    x, y = (np.sign(side[..., i] - side[..., j]) for side in (a, b))
    untied = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    with np.errstate(invalid="ignore"):
        return np.where(untied > 0, (x * y).sum(-1) / untied, np.nan)


def agreement(a: TaskScores, b: TaskScores, *, draws: int = DRAWS, seed: int = 0) -> RankAgreement:
    """Compare the rankings by two sides' mean over tasks.

    Args:
        a, b: Scores of the same methods on the same items in the same order. A method has as many seeds on each task of a side.
        draws: Of the bootstrap.
        seed: Of its random numbers.
    """
    tau = _number(kendall(_means(a), _means(b)))
    rng = np.random.default_rng(seed)
    weights = [rng.multinomial(task[0].shape[1], _even(task[0].shape[1]), draws) for task in a]
    drawn = kendall(*(_resampled(side, weights, rng) for side in (a, b)))
    known = drawn[~np.isnan(drawn)]
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(known, (tail, 1 - tail)) if known.size and tau is not None else None
    seeds = min(method.shape[0] for side in (a, b) for method in side[0])
    one_of_a, one_of_b = ([_means([[m[k : k + 1] for m in task] for task in s]) for k in range(seeds)] for s in (a, b))
    across = [kendall(one_of_a[i], one_of_b[j]) for i, j in permutations(range(seeds), 2)]
    within = [kendall(side[i], side[j]) for side in (one_of_a, one_of_b) for i, j in combinations(range(seeds), 2)]
    return RankAgreement(tau, None if ends is None else (float(ends[0]), float(ends[1])), _mean(across), _mean(within))


def _means(scores: TaskScores) -> np.ndarray:
    """The mean over tasks of each method's mean, [methods]."""
    return np.mean([[method.mean() for method in task] for task in scores], axis=0)


def _resampled(scores: TaskScores, weights: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Means of resampled items and seeds, [draws, methods]. weights: how often each item was drawn, for each task."""
    draws = weights[0].shape[0]
    columns = []
    for methods in zip(*scores, strict=True):  # a method's scores on each task: it is trained once for all of them
        count = methods[0].shape[0]
        seeds = rng.multinomial(count, _even(count), draws)
        of_tasks = [
            ((of_items @ method.T) * seeds).sum(-1) / method.size
            for of_items, method in zip(weights, methods, strict=True)
        ]
        columns.append(np.mean(of_tasks, axis=0))
    return np.stack(columns, axis=-1)


def _even(count: int) -> np.ndarray:
    return np.full(count, 1 / count)


def _number(value: np.ndarray) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: Sequence[np.ndarray]) -> float | None:
    known = [float(value) for value in values if not np.isnan(value)]
    return sum(known) / len(known) if known else None

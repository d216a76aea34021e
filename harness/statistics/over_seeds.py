"""Combines several training seeds into one score: mean, standard deviation, and an interval over seeds and items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.results.item_scores import ItemScores
from harness.runs.records import MetricValue
from harness.statistics.variance_components import mean_interval


@dataclass(frozen=True)
class SeedMean:
    """The mean score, 0 to 100, of the `seeds` that have one. `sd` is that of the seeds (ddof 1), None for fewer than two."""

    value: float | None
    sd: float | None
    ci95: tuple[float, float] | None
    seeds: int


def over_seeds(metrics: Sequence[MetricValue], scores: ItemScores | None) -> SeedMean:
    """Combine one metric of a cell over its seeds.

    One seed keeps its own interval. Several get the interval of variance_components.py if there are item scores, otherwise a wider one
    from the intervals of the seeds.
    """
    scored = [metric for metric in metrics if metric.value is not None]
    values = [metric.value for metric in scored if metric.value is not None]
    if not values:
        return SeedMean(None, None, None, 0)
    if len(values) == 1:
        return SeedMean(values[0], None, scored[0].ci95, 1)
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    if scores is not None and len(scores.seeds) == len(values):
        complete = scores.values[:, ~np.isnan(scores.values).any(axis=0)]
        if complete.shape[1] == scores.values.shape[1] > 1:
            return SeedMean(mean, sd, mean_interval(complete), len(values))
    return SeedMean(mean, sd, _nested_interval(mean, sd, scored), len(values))


def _nested_interval(mean: float, sd: float, metrics: Sequence[MetricValue]) -> tuple[float, float] | None:
    """The interval from Var = s²_seed/S + s²_item/n: the seeds differ, and all of them have the same n items.

    It is too wide, because both terms contain the residual; only item scores show by how much.

    The item part is read from each seed's own interval, each side separately, and not from its standard error: that is zero at 0 and
    100, and Wilson's interval is not. The quantile is Student's with the degrees of freedom of Welch and Satterthwaite, because a few
    seeds estimate their spread badly.
    """
    lows = [metric.value - metric.ci95[0] for metric in metrics if metric.ci95 and metric.value is not None]
    highs = [metric.ci95[1] - metric.value for metric in metrics if metric.ci95 and metric.value is not None]
    if len(lows) < len(metrics):
        return None
    items = min((metric.n for metric in metrics if metric.n is not None), default=2)
    low, high = (_half_width(sd, len(metrics), math.fsum(side) / len(side), items) for side in (lows, highs))
    return (max(0.0, mean - low), min(100.0, mean + high))


def _half_width(sd: float, seeds: int, half_width_of_items: float, items: int) -> float:
    from scipy.stats import norm, t  # here, because a table of one seed each should not wait for it

    of_seeds, of_items = sd**2 / seeds, (half_width_of_items / float(norm.ppf(0.975))) ** 2
    variance = of_seeds + of_items
    if variance == 0:
        return 0.0
    freedom = variance**2 / (of_seeds**2 / (seeds - 1) + of_items**2 / max(1, items - 1))
    return float(t.ppf(0.975, freedom)) * math.sqrt(variance)

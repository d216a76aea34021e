"""Scores of samples to a summary, which `harness score` and the evaluation share.

What is counted is problems: samples of one problem are averaged first, as they are not independent.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from harness.evaluation.reasoning import reasoning_summary
from harness.metrics.sample import HARNESS_ERROR, INVALID
from harness.statistics.intervals import (
    bootstrap_interval,
    clustered_wilson_interval,
    mean_and_error,
    pass_at_k,
    weighted_mean_and_error,
    wilson_interval,
)
from harness.tasks.task import Doc, Metric, Task

# Besides pass@1, where problems have several samples; undefined where one has fewer than that.
PASS_AT = (10, 100)
PASS_AT_1 = "pass@1"
DECIMALS = 4

Sample = Mapping[str, Any]


def summarise(task: Task, samples: Sequence[Sample]) -> dict[str, Any]:
    """Return what the samples of one task come to.

    {"metrics": {name: {...}}, "n": {...}}, and where there are some "categories" and "reasoning".

    A metric has value, stderr, ci95, ci_method, higher_is_better and n, the number of problems; values are on 0..100.
    Samples that the harness could not score count as neither right nor wrong; where nothing is left, value, stderr and ci95 are
    None and "reason" says why. Where documents have categories, "categories" has the headline's value and n in each, and the
    metric "HEADLINE_macro" is the mean of the categories' values.

    `samples` need "id", "scores" and "outcome"; "finish_reason" is "length" where an output was truncated.
    """
    problems: dict[str, list[Sample]] = {}
    for sample in samples:
        problems.setdefault(sample["id"], []).append(sample)
    groups = list(problems.values())
    metrics = {}
    for number, metric in enumerate(task.metrics):
        metrics[metric.name] = _of_metric(metric, groups)
        if metric.name.endswith(PASS_AT_1) and any(len(group) > 1 for group in groups):
            prefix = metric.name.removesuffix(PASS_AT_1)
            metrics |= {f"{prefix}pass@{k}": _pass_at(k, groups, metric) for k in PASS_AT}
        if number == 0 and any(len(group) > 1 for group in groups):
            metrics |= _over_samples(task, groups)
    categories = _by_category(task.metrics[0], groups)
    if categories:
        metrics[f"{task.metrics[0].name}_macro"] = _macro(task.metrics[0], list(categories.values()))
    reasoning = reasoning_summary(task.metrics[0], samples)
    return {
        "metrics": metrics,
        "n": _counts(task, samples),
        **({"categories": {name: _category(values) for name, values in categories.items()}} if categories else {}),
        **({} if reasoning is None else {"reasoning": reasoning}),
    }


def category_field(task: Task, doc: Doc) -> dict[str, str]:
    """Return what a sample says of its document's category: nothing where there is none."""
    category = task.category(doc)
    return {} if category is None else {"category": category}


def _counts(task: Task, samples: Sequence[Sample]) -> dict[str, int]:
    headline = task.metrics[0].name
    return {
        "total": len(samples),
        "scored": sum(sample["scores"][headline] is not None for sample in samples),
        "invalid": sum(sample["outcome"] == INVALID for sample in samples),
        "truncated": sum(sample.get("finish_reason") == "length" for sample in samples),
        "harness_error": sum(sample["outcome"] == HARNESS_ERROR for sample in samples),
    }


def _scored(samples: Iterable[Sample], metric: Metric) -> list[float]:
    return [value for sample in samples if (value := sample["scores"][metric.name]) is not None]


def _of_metric(metric: Metric, groups: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """The mean over problems, weighted by their parts where samples have weights."""
    scored = [(group, values) for group in groups if (values := _scored(group, metric))]
    means = [fmean(values) for _, values in scored]
    weights = [group[0].get("weights", {}).get(metric.name, 1) for group, _ in scored]
    return _estimate(means, metric, sum(len(values) for _, values in scored), weights)


def _pass_at(k: int, groups: Sequence[Sequence[Sample]], metric: Metric) -> dict[str, Any]:
    values = [_scored(group, metric) for group in groups]
    chances = [pass_at_k(len(value), sum(score == 100.0 for score in value), k) for value in values]
    known = [100.0 * chance for chance in chances if chance is not None]
    if len(known) < len(chances):
        return _unknown(metric, len(known), f"a problem has fewer than {k} samples that could be run")
    return _estimate(known, metric, sum(map(len, values)))


def _over_samples(task: Task, groups: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    """`avg@k`, `maj@k` and `pass@k`, where k is the smallest number of samples that a problem has."""
    metric = task.metrics[0]
    k = min(map(len, groups))
    values: dict[str, Callable[[], dict[str, Any]]] = {
        "avg": lambda: _of_metric(metric, groups),
        "maj": lambda: _majorities(task, [group[:k] for group in groups]),
        "pass": lambda: _pass_at(k, groups, metric),
    }
    return {f"{name}@{k}": values[name]() for name in task.over_samples}


def _majorities(task: Task, groups: Sequence[Sequence[Sample]]) -> dict[str, Any]:
    values = [value for group in groups if (value := _majority(task, group)) is not None]
    return _estimate(values, task.metrics[0], len(values))


def _majority(task: Task, group: Sequence[Sample]) -> float | None:
    """The score of the answer that most samples of a problem give; answers with equally many votes share it.

    Without any answer it is 0, and None where no sample could be scored.
    """
    headline = task.metrics[0].name
    scored = [sample for sample in group if sample["scores"][headline] is not None]
    given = [(sample["extracted"].get(headline), sample["scores"][headline]) for sample in scored]
    scores = {task.answer_key(answer): score for answer, score in given if answer is not None}
    votes = Counter(task.answer_key(answer) for answer, _ in given if answer is not None)
    if not votes:
        return 0.0 if scored else None
    most = max(votes.values())
    return fmean(scores[key] for key, count in votes.items() if count == most)


def _by_category(metric: Metric, groups: Sequence[Sequence[Sample]]) -> dict[str, list[float]]:
    """The scores of the problems of each category, samples averaged; categories by name."""
    found: dict[str, list[float]] = {}
    for group in groups:
        if (name := group[0].get("category")) is not None:
            values = _scored(group, metric)
            found.setdefault(name, []).extend([fmean(values)] if values else [])
    return dict(sorted(found.items()))


def _category(values: Sequence[float]) -> dict[str, Any]:
    return {"value": round(fmean(values), DECIMALS) if values else None, "n": len(values)}


def _macro(metric: Metric, categories: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The mean of the categories' means: problems are drawn within each, so its variance is the sum of theirs."""
    if not all(categories):
        return _unknown(metric, 0, "a category has no sample that could be scored")
    estimates = [mean_and_error(values) for values in categories]
    mean = fmean(value for value, _ in estimates)
    errors = [error for _, error in estimates if error is not None]
    complete = len(errors) == len(categories)
    error = math.sqrt(math.fsum(error**2 for error in errors)) / len(categories) if complete else None
    problems = sum(map(len, categories))
    interval = None if error is None else _clustered(mean, error, problems, problems)
    return _known(metric, problems, mean, error, interval, "wilson-clustered")


def _estimate(
    values: Sequence[float], metric: Metric, samples: int, weights: Sequence[int] | None = None
) -> dict[str, Any]:
    """Estimate the mean over problems, one value each, of so many samples in all."""
    if not values:
        return _unknown(metric, 0, "no sample could be scored")
    weighted = weights is not None and set(weights) != {1}
    mean, error = weighted_mean_and_error(values, weights or ()) if weighted else mean_and_error(values)
    interval: tuple[float, float] | None
    if metric.kind == "binary" and set(values) <= {0.0, 100.0} and not weighted:
        method = "wilson"
        low, high = wilson_interval(sum(value == 100.0 for value in values), len(values))
        interval = 100.0 * low, 100.0 * high
    elif metric.kind == "binary" or weighted:
        method = "wilson-clustered"
        parts = sum(weights or ()) if weighted else samples
        interval = None if error is None else _clustered(mean, error, len(values), parts)
    else:
        method = "bootstrap"
        interval = bootstrap_interval(values) if len(values) > 1 else None
    return _known(metric, len(values), mean, error, interval, method)


def _clustered(mean: float, error: float, problems: int, samples: int) -> tuple[float, float]:
    low, high = clustered_wilson_interval(mean / 100.0, error / 100.0, problems, max(problems, samples))
    return 100.0 * low, 100.0 * high


def _known(
    metric: Metric, n: int, mean: float, error: float | None, interval: tuple[float, float] | None, method: str
) -> dict[str, Any]:
    return _unknown(metric, n) | {
        "value": round(mean, DECIMALS),
        "stderr": None if error is None else round(error, DECIMALS),
        "ci95": None if interval is None else [round(end, DECIMALS) for end in interval],
        "ci_method": method,
    }


def _unknown(metric: Metric, n: int, reason: str | None = None) -> dict[str, Any]:
    nothing = dict.fromkeys(("value", "stderr", "ci95", "ci_method"))
    because = {} if reason is None else {"reason": reason}
    return {**nothing, "higher_is_better": metric.higher_is_better, "n": n, **because}

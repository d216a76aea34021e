"""How much the validation score of a method's trials goes with the value of each option that is tuned.

Trials that halving drops were scored after fewer steps, so their scores are not compared as numbers: a trial that got further is placed
above one that did not, and among those that got equally far the score decides. One without a score is the last.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from harness.statistics.rank_correlation import rank_correlation
from harness.tables.tuning_rows import TunedMethod
from harness.tuning.records import TrialRecord

Scale = Literal["linear", "log", "values"]
_BY_RATIO = "by ratio"  # how the words of a range end whose ratios are equally likely
_LARGEST = 1e300
_FAR = 50  # times the smallest value: choices that are so far apart are drawn by ratio, too


@dataclass(frozen=True)
class Sensitivity:
    """One option of one method.

    Attributes:
        range: In words.
        scale: That a plot has: `values` for those that are no numbers.
        default: Its value without tuning; None where the record does not say it.
        values: (trial, its value) of each trial whose value is known.
        correlation: Spearman's r of value and place, positive where more is better; None for values that are no numbers.
        ci95: Its interval; None of fewer than five trials.
        n: So many trials it is of.
        groups: (value, mean rank, trials) of each value that is no number; the best trial has rank 1.
    """

    option: str
    range: str
    scale: Scale
    default: Any
    values: list[tuple[int, Any]]
    correlation: float | None
    ci95: tuple[float, float] | None
    n: int
    groups: list[tuple[Any, float, int]]


def sensitivities(method: TunedMethod) -> list[Sensitivity]:
    """What each option that is tuned does to the score, in the order of the space."""
    return [_of_option(method, option, words) for option, words in method.row.space.items()]


def in_order(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials by their numbers, which is the order in which they would be run one after the other."""
    return sorted(trials, key=lambda trial: trial.trial)


def value_of(method: TunedMethod, trial: TrialRecord, option: str) -> Any:
    """The value that an option had in a trial; None where it is not known."""
    return trial.settings.get(option, method.row.defaults.get(option))


def _of_option(method: TunedMethod, option: str, words: str) -> Sensitivity:
    known = [(trial, value_of(method, trial, option)) for trial in in_order(method.ranking)]
    known = [(trial, value) for trial, value in known if value is not None]
    scale, found = _scale(words, [value for _, value in known]), None
    if scale != "values":
        order = sorted({_outcome(trial) for trial, _ in known})
        found = rank_correlation(
            [float(value) for _, value in known], [order.index(_outcome(trial)) for trial, _ in known]
        )
    return Sensitivity(
        option=option,
        range=words,
        scale=scale,
        default=method.row.defaults.get(option),
        values=[(trial.trial, value) for trial, value in known],
        correlation=None if found is None else found.value,
        ci95=None if found is None else found.ci95,
        n=len(known),
        groups=_groups(method, known) if scale == "values" else [],
    )


def _groups(method: TunedMethod, known: Sequence[tuple[TrialRecord, Any]]) -> list[tuple[Any, float, int]]:
    ranks = {trial.trial: rank for rank, trial in enumerate(method.ranking, 1)}
    groups: dict[str, tuple[Any, list[int]]] = {}
    for trial, value in known:
        groups.setdefault(json.dumps(value, sort_keys=True), (value, []))[1].append(ranks[trial.trial])
    return [(value, round(fmean(of_value), 2), len(of_value)) for value, of_value in groups.values()]


def _outcome(trial: TrialRecord) -> tuple[bool, float, float]:
    """More is better."""
    return trial.score is not None, trial.share, trial.score or 0.0


def _scale(words: str, values: Sequence[Any]) -> Scale:
    if not values or not all(map(_is_number, values)):
        return "values"
    low, high = min(values), max(values)
    return "log" if low > 0 and (words.endswith(_BY_RATIO) or high / low > _FAR) else "linear"


def _is_number(value: Any) -> bool:
    """Whether a value has a place on an axis."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST

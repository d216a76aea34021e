"""Which method of a column is best, which are not significantly different from it, and how much of the gap to the teacher each closes.

Every method is compared with the one with the best mean, on the same items. The p-values of the column are adjusted by Holm. Methods
with p ≥ 0.05 are tied with the best. The best is chosen by the same scores, which the adjustment does not take into account. So the
mark says which methods may be the best; it is not a test of two methods that were picked beforehand (`harness compare` is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from dskd.errors import InputError
from harness.results.item_scores import ItemScores, common_kind
from harness.statistics.paired_tests import PairedComparison, compare, holm, mean_difference

ALPHA = 0.05


@dataclass(frozen=True)
class Standing:
    """The place of a method in its column, as in `harness.tables.rows.ScoreRow`."""

    best: bool = False
    tied: bool | None = None
    p_best: float | None = None
    difference_best: float | None = None
    gap_closed: float | None = None
    gap_reason: str | None = None


@dataclass(frozen=True)
class Ranking:
    """A column of one pair. `min_detectable_effect` is the median over its comparisons with the best."""

    standings: dict[str, Standing] = field(default_factory=dict)
    min_detectable_effect: float | None = None
    notes: list[str] = field(default_factory=list)


def rank(
    values: Mapping[str, float],
    scores: Mapping[str, ItemScores],
    teacher: ItemScores | None,
    *,
    higher_is_better: bool = True,
    baseline: str = "sft",
) -> Ranking:
    """Rank the methods of a column.

    Args:
        values: the mean of each method.
        scores: the item scores of the methods that have them.
        teacher: the item scores of the teacher.
        higher_is_better: the direction of the metric.
        baseline: the method from which the gap to the teacher is measured.
    """
    if not values:
        return Ranking()
    sign = 1 if higher_is_better else -1
    best = max(sorted(values), key=lambda name: sign * values[name])
    compared: dict[str, PairedComparison] = {}
    notes = []
    for name in sorted(values):
        if name == best or name not in scores or best not in scores:
            continue
        try:
            compared[name] = _compare(scores[name], scores[best])
        except InputError as error:
            notes.append(f"{name} cannot be compared with {best}: {str(error).partition(';')[0]}")
            continue
        if left_out := compared[name].n_excluded + compared[name].n_prompts_differ:
            notes.append(
                f"{name} against {best}: {left_out} items left out (on one side only, without score, or with different prompts)"
            )
    adjusted = dict(zip(compared, holm([one.p_value for one in compared.values()]), strict=True))
    untested = sorted(name for name in values if name != best and name not in compared)
    if untested and not notes:
        notes.append(f"not compared with the best, because there are no item scores: {', '.join(untested)}")
    gaps = _gaps(values, scores, teacher, sign, baseline)
    standings = {}
    for name in values:
        gap, reason = gaps[name]
        standings[name] = Standing(
            best=name == best and len(values) > 1,
            tied=adjusted[name] >= ALPHA if name in adjusted else None,
            p_best=round(adjusted[name], 4) if name in adjusted else None,
            difference_best=round(compared[name].difference, 4) if name in compared else None,
            gap_closed=gap,
            gap_reason=reason,
        )
    effect = round(median(one.min_detectable_effect for one in compared.values()), 2) if compared else None
    return Ranking(standings, effect, notes)


def _gaps(
    values: Mapping[str, float], scores: Mapping[str, ItemScores], teacher: ItemScores | None, sign: int, baseline: str
) -> dict[str, tuple[float | None, str | None]]:
    """For each method the share of the gap that it closes, or why there is none."""
    if teacher is None or baseline not in scores:
        missing = "the teacher" if teacher is None else baseline
        return dict.fromkeys(values, (None, f"{missing} has no item scores here"))
    try:
        # Each model has prompts of its own template, so the teacher's may differ from the students'.
        gap = _compare(teacher, scores[baseline], same_prompts=False)
    except InputError as error:
        return dict.fromkeys(values, (None, str(error).partition(";")[0]))
    if gap.p_value >= ALPHA:
        reason = (
            f"the teacher is not significantly different from {baseline} ({gap.difference:+.1f}, p = {gap.p_value:.2g})"
        )
        return dict.fromkeys(values, (None, reason))
    if sign * gap.difference < 0:
        return dict.fromkeys(values, (None, f"the teacher is worse than {baseline} ({gap.difference:+.1f})"))
    return {name: _share(scores.get(name), scores[baseline], gap.difference) for name in values}


def _share(method: ItemScores | None, baseline: ItemScores, gap: float) -> tuple[float | None, str | None]:
    if method is None:
        return None, "no item scores"
    try:
        return round(100 * mean_difference(method, baseline) / gap, 1), None
    except InputError as error:
        return None, str(error).partition(";")[0]


def _compare(a: ItemScores, b: ItemScores, *, same_prompts: bool = True) -> PairedComparison:
    return compare(a, b, common_kind(a, b), same_prompts=same_prompts)

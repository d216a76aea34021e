"""Which method of a column is best, which are not significantly different from it, and how much of the gap to the teacher each closes.

Every method is compared with the one with the best mean, on the same items. The p-values of the column are adjusted by Holm. Methods
with p ≥ 0.05 are tied with the best. The best is chosen by the same scores, which the adjustment does not take into account. So the
mark says which methods may be the best; it is not a test of two methods that were picked beforehand (`harness compare` is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

from dskd.errors import InputError
from harness.results.item_scores import ItemScores
from harness.statistics.paired_tests import PairedComparison, compare, holm_of, mean_difference

ALPHA = 0.05
BASELINE = "sft"  # the method from which the gap to the teacher is measured


@dataclass(frozen=True)
class Standing:
    """The place of a method in its column, as in `harness.tables.rows.ScoreRow`."""

    best: bool
    tied: bool | None
    p_best: float | None
    difference_best: float | None
    gap_closed: float | None
    gap_reason: str | None

    @classmethod
    def unranked(cls, gap_closed: float | None, gap_reason: str | None) -> Standing:
        """Of a method that is shown and compared with no other."""
        return cls(False, None, None, None, gap_closed, gap_reason)


@dataclass(frozen=True)
class Ranking:
    """A column of one pair. `min_detectable_effect` is the median over its comparisons with the best."""

    standings: dict[str, Standing]
    min_detectable_effect: float | None
    notes: list[str]


def rank(
    values: Mapping[str, float],
    scores: Mapping[str, ItemScores],
    teacher: ItemScores | None,
    *,
    higher_is_better: bool = True,
    baseline: str = BASELINE,
) -> Ranking:
    """Rank the methods of a column.

    Args:
        values: the mean of each method.
        scores: the item scores of the methods that have them, and of the baseline.
        teacher: the item scores of the teacher.
        higher_is_better: the direction of the metric.
        baseline: the method from which the gap to the teacher is measured.
    """
    sign = 1 if higher_is_better else -1
    best = max(sorted(values), key=lambda name: sign * values[name], default="")
    compared: dict[str, PairedComparison] = {}
    notes = []
    for name in sorted(values):
        if name == best or name not in scores or best not in scores:
            continue
        try:
            compared[name] = compare(scores[name], scores[best])
        except InputError as error:
            notes.append(f"{name} cannot be compared with {best}: {str(error).partition(';')[0]}")
            continue
        if left_out := compared[name].n_excluded + compared[name].n_prompts_differ:
            reasons = "on one side only, without score, or with different prompts"
            notes.append(f"{name} against {best}: {left_out} items left out ({reasons})")
    adjusted = dict(zip(compared, holm_of(list(compared.values())), strict=True))
    untested = sorted(name for name in values if name != best and name not in compared)
    if untested and not notes:
        notes.append(f"not compared with the best, because there are no item scores: {', '.join(untested)}")
    standings = {}
    gaps = shares_of_gap(values, scores, teacher, higher_is_better=higher_is_better, baseline=baseline)
    for name, gap in gaps.items():
        standings[name] = Standing(name == best and len(values) > 1, None, None, None, *gap)
    for name, comparison in compared.items():
        p, difference = round(adjusted[name], 4), round(comparison.difference, 4)
        standings[name] = replace(standings[name], tied=adjusted[name] >= ALPHA, p_best=p, difference_best=difference)
    effect = round(median(one.min_detectable_effect for one in compared.values()), 2) if compared else None
    return Ranking(standings, effect, notes)


def shares_of_gap(
    values: Mapping[str, float],
    scores: Mapping[str, ItemScores],
    teacher: ItemScores | None,
    *,
    higher_is_better: bool = True,
    baseline: str = BASELINE,
) -> dict[str, tuple[float | None, str | None]]:
    """For each method the share of the gap that it closes, or why there is none. The arguments are those of `rank`."""
    sign = 1 if higher_is_better else -1
    if teacher is None or baseline not in scores:
        missing = "the teacher" if teacher is None else baseline
        return dict.fromkeys(values, (None, f"{missing} has no item scores here"))
    try:
        # Each model has prompts of its own template, so the teacher's may differ from the students'.
        gap = compare(teacher, scores[baseline], same_prompts=False)
    except InputError as error:
        return dict.fromkeys(values, (None, str(error).partition(";")[0]))
    reason, details = None, f"{gap.difference:+.1f}"
    if gap.p_value >= ALPHA:
        reason, details = "not significantly different from", f"{details}, p = {gap.p_value:.2g}"
    elif sign * gap.difference < 0:
        reason = "worse than"
    if reason is not None:
        return dict.fromkeys(values, (None, f"the teacher is {reason} {baseline} ({details})"))
    return {name: _share(scores.get(name), scores[baseline], gap.difference) for name in values}


def _share(method: ItemScores | None, baseline: ItemScores, gap: float) -> tuple[float | None, str | None]:
    if method is None:
        return None, "no item scores"
    try:
        return round(100 * mean_difference(method, baseline) / gap, 1), None
    except InputError as error:
        return None, str(error).partition(";")[0]

"""Who is best in a column, who cannot be told from the best, and how much of the way to the teacher each method goes.

Every method is compared with the one whose mean is best, on the same items, and the p-values of the column are adjusted by Holm.
What is not below 0.05 is tied with the best. The best is chosen by the same scores, which the adjustment does not know of: the mark
says who may be the best, and is no test between two methods that were picked before (`harness compare` is).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from dskd.errors import InputError
from harness.results.item_scores import ItemScores, Kind
from harness.statistics.paired_tests import Comparison, compare, holm, mean_difference

ALPHA = 0.05


@dataclass(frozen=True)
class Standing:
    """How a method stands in its column. `tied`: None where it could not be compared; `p_best` is adjusted.

    `gap_closed`: (method - sft) / (teacher - sft) in per cent; None with a reason.
    """

    best: bool = False
    tied: bool | None = None
    p_best: float | None = None
    difference_best: float | None = None
    gap_closed: float | None = None
    gap_reason: str | None = None


@dataclass(frozen=True)
class Ranking:
    """A column of one pair. `mde80`: the median over its comparisons with the best."""

    standings: dict[str, Standing] = field(default_factory=dict)
    mde80: float | None = None
    notes: list[str] = field(default_factory=list)


def rank(
    values: Mapping[str, float],
    scores: Mapping[str, ItemScores],
    teacher: ItemScores | None,
    *,
    higher_is_better: bool = True,
    baseline: str = "sft",
) -> Ranking:
    """Rank the methods of a column by their means `values`; `scores` are the items of those that have them."""
    if not values:
        return Ranking()
    sign = 1 if higher_is_better else -1
    best = max(sorted(values), key=lambda name: sign * values[name])
    compared: dict[str, Comparison] = {}
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
                f"{name} against {best}: {left_out} items left out, not of both, without score or asked in other words"
            )
    adjusted = dict(zip(compared, holm([found.p_value for found in compared.values()]), strict=True))
    untested = sorted(name for name in values if name != best and name not in compared)
    if untested and not notes:
        notes.append(f"not compared with the best, as there are no scores of single items: {', '.join(untested)}")
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
    mde = median(found.mde80 for found in compared.values()) if compared else None
    return Ranking(standings, None if mde is None else round(mde, 2), notes)


def _gaps(
    values: Mapping[str, float], scores: Mapping[str, ItemScores], teacher: ItemScores | None, sign: int, baseline: str
) -> dict[str, tuple[float | None, str | None]]:
    """For each method the share of the gap that it closes, or why there is none."""
    if teacher is None or baseline not in scores:
        missing = "the teacher" if teacher is None else baseline
        return dict.fromkeys(values, (None, f"{missing} has no scores of single items here"))
    try:
        # Each in the words of its own template: the teacher may be asked otherwise than the students.
        whole = _compare(teacher, scores[baseline], same_prompts=False)
    except InputError as error:
        return dict.fromkeys(values, (None, str(error).partition(";")[0]))
    if whole.p_value >= ALPHA:
        reason = f"the teacher is not told from {baseline} ({whole.difference:+.1f}, p = {whole.p_value:.2g})"
        return dict.fromkeys(values, (None, reason))
    if sign * whole.difference < 0:
        return dict.fromkeys(values, (None, f"the teacher is worse than {baseline} ({whole.difference:+.1f})"))
    return {name: _share(scores.get(name), scores[baseline], whole.difference) for name in values}


def _share(method: ItemScores | None, baseline: ItemScores, gap: float) -> tuple[float | None, str | None]:
    if method is None:
        return None, "no scores of single items"
    try:
        return round(100 * mean_difference(method, baseline) / gap, 1), None
    except InputError as error:
        return None, str(error).partition(";")[0]


def _compare(a: ItemScores, b: ItemScores, *, same_prompts: bool = True) -> Comparison:
    kind: Kind = "binary" if a.kind == b.kind == "binary" else "continuous"
    return compare(a, b, kind, same_prompts=same_prompts)

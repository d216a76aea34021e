"""What the numbers of texts come to: a ratio of sums each, with an interval over the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from dskd.distances import Measured
from harness.distances.texts import Texts
from harness.results.distances import DistanceName, DistanceValue, TextDistances
from harness.statistics.intervals import bootstrap_ratio_interval

DECIMALS = 6
LENGTHS: tuple[DistanceName, ...] = ("length_ratio", "cut_off_share")
MEASURED: tuple[DistanceName, ...] = tuple(name for name in get_args(DistanceName) if name not in LENGTHS)
_FORMS: dict[str, Literal["exact", "lower_bound"]] = {"hidden_states": "exact", "top_k": "lower_bound"}
Source = Literal["live", "cache", "served"]


def summarise(texts: Texts, measured: Measured, source: Source | None, without: str | None) -> TextDistances:
    """The numbers on one kind of text.

    Args:
        texts, measured: What was compared, and what was found.
        source: Where the teacher was; None without one.
        without: Why there is no teacher.
    """
    left_out = dict(texts.left_out)
    for reason in measured.left_out.values():
        left_out[reason] = left_out.get(reason, 0) + 1
    unknown: Mapping[str, str] = measured.unknown
    if without is not None:
        unknown = dict.fromkeys(measured.unknown, without)
    return TextDistances(
        source=source,
        outputs=measured.outputs,
        form=_FORMS.get(measured.outputs or ""),
        space=measured.space,
        space_size=measured.space_size,
        texts=len(texts.texts) + sum(texts.left_out.values()),
        left_out=left_out,
        values={name: _of(name, texts.ids, measured, unknown.get(name)) for name in MEASURED},
    )


def nothing(reason: str) -> TextDistances:
    """Where there is no such text."""
    return TextDistances(values={name: DistanceValue(value=None, reason=reason) for name in MEASURED})


def of_lengths(found: Sequence[tuple[str, float, float, float]]) -> dict[DistanceName, DistanceValue]:
    """Bytes of the answers by bytes of the references, and the share that was cut off; of what `texts.lengths` gives."""
    ids = [each[0] for each in found]
    return {
        "length_ratio": ratio(ids, [(each[1], each[2]) for each in found], n=len(found)),
        "cut_off_share": ratio(ids, [(each[3], 1.0) for each in found], n=len(found)),
    }


def _of(name: DistanceName, ids: Sequence[str], measured: Measured, unknown: str | None) -> DistanceValue:
    if unknown is not None:
        return DistanceValue(value=None, reason=unknown)
    found = [(key, item[name]) for key, item in zip(ids, measured.items, strict=True) if item is not None]
    return ratio([key for key, _ in found], [pair for _, pair in found])


def ratio(ids: Sequence[str], pairs: Sequence[tuple[float, float]], n: int | None = None) -> DistanceValue:
    """Σ sums / Σ counts of texts, with an interval from drawing their items anew. n: what is counted, where counts are no numbers of it."""
    items: dict[str, tuple[float, float]] = {}
    for key, (total, count) in zip(ids, pairs, strict=True):
        before = items.get(key, (0.0, 0.0))
        items[key] = before[0] + total, before[1] + count
    sums, counts = [total for total, _ in items.values()], [count for _, count in items.values()]
    counted = sum(counts)
    if not counted:
        return DistanceValue(value=None, items=len(items), reason="there is no token or text to take it from")
    interval = bootstrap_ratio_interval(sums, counts) if len(items) > 1 else None
    return DistanceValue(
        value=_rounded(sum(sums) / counted),
        ci95=None if interval is None else (_rounded(interval[0]), _rounded(interval[1])),
        n=int(counted) if n is None else n,
        items=len(items),
    )


def _rounded(value: float) -> float:
    return round(value, DECIMALS) + 0.0  # no negative zero

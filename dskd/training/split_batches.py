"""Micro-batches that are computed in parts, where a whole one does not fit into memory (`TrainingOptions.split_batches`).

Every term of a loss is a sum that the whole optimizer step normalises, so a step in parts has the same loss and gradients up to
rounding (P11 in docs/performance.md); only dropout draws other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass
class SplitBatch:
    """The parts of a micro-batch, each a batch of its own."""

    parts: list[Any]


@dataclass
class SplitCollator:
    """Rows of a micro-batch to a `SplitBatch` of at most `number` parts, in their order and nearly equally many rows each.

    Attributes:
        collator: Of the rows of a part.
    """

    collator: Callable[[Any], Any]
    number: int

    def __call__(self, rows: Sequence[Any]) -> SplitBatch:
        number = min(self.number, len(rows))
        ends = [len(rows) * part // number for part in range(number + 1)]
        return SplitBatch([self.collator(rows[first:last]) for first, last in pairwise(ends)])


def parts_of(batch: Any) -> list[Any]:
    """The parts of a micro-batch: itself where it is whole."""
    return batch.parts if isinstance(batch, SplitBatch) else [batch]


def regrouped(batches: Sequence[Any], parts: Sequence[Any]) -> list[Any]:
    """Micro-batches as they were, made of other parts: as many as `parts_of` gives of all of them, in that order."""
    rest: Iterator[Any] = iter(parts)
    return [
        SplitBatch([next(rest) for _ in batch.parts]) if isinstance(batch, SplitBatch) else next(rest)
        for batch in batches
    ]

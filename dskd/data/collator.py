"""Rows of a prepared dataset (dskd/data/preparation.py) to the tensors of a batch: padded or packed, flat where there is a label."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.data.rows import label_spans
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.tokenization.alignment import UNKNOWN

NEGLIGIBLE_PADDING = 0.02


@dataclass(frozen=True)
class _Layout:
    """Where each example of a batch stands: its row and first column, in a tensor of `rows` times `width`."""

    rows: int
    width: int
    places: list[tuple[int, int]]


def _packed(lengths: Sequence[int], row_length: int) -> _Layout:
    """Several examples a row, rows nearly equally long and of about `row_length`. No example is split.

    Each example, longest first, goes to the row that is the shortest so far. Of the numbers of rows that make them 1 to 1.5 times
    row_length, large ones first (short rows cost attention less), the first with hardly any padding is taken, or the best.
    """
    total, order = sum(lengths), sorted(range(len(lengths)), key=lambda k: -lengths[k])
    layouts: list[_Layout] = []
    for rows in range(min(total // row_length + 1, len(lengths)), 0, -1):
        if layouts and rows * row_length * 3 < total * 2:
            break
        shortest = [(0, row) for row in range(rows)]
        places = [(0, 0)] * len(lengths)
        for k in order:
            used, row = shortest[0]
            places[k] = row, used
            heapq.heapreplace(shortest, (used + lengths[k], row))
        layouts.append(_Layout(rows, max(shortest)[0], places))
        if rows * layouts[-1].width * (1 - NEGLIGIBLE_PADDING) <= total:
            break
    return min(layouts, key=lambda layout: layout.rows * layout.width)


def _side(
    rows: Sequence[Sequence[int]], label_spans: Sequence[Sequence[tuple[int, int]]], layout: _Layout, packed: bool
) -> SideTokens:
    """The hidden state at flat position labelled[t] is to predict labels[t]; t runs through the examples in the order given."""
    shape = layout.rows, layout.width
    ids = np.zeros(shape, dtype=np.int64)  # padding may be any id: nothing attends to it and nothing labels it
    mask = np.zeros(shape, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    places, labels = [], []
    for values, spans, (row, column) in zip(rows, label_spans, layout.places, strict=True):
        end = column + len(values)
        ids[row, column:end] = values
        mask[row, column:end] = 1
        # Each example counts from 0: models with absolute positions would count what stands before it.
        positions[row, column:end] = np.arange(len(values))
        begin = row * layout.width + column
        for first, last in spans:
            places.append(np.arange(begin + first - 1, begin + last - 1))
            labels.append(np.asarray(values[first:last], dtype=np.int64))
    if packed:
        # What is left at a row's end is an example of its own, so that it keeps out of the last one's attention.
        for row, used in enumerate(mask.sum(1).tolist()):
            positions[row, used:] = np.arange(layout.width - used)
    labelled = np.concatenate(places)
    return SideTokens(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        attention_mask=None if packed else torch.from_numpy(mask),
        labelled=torch.from_numpy(labelled),
        labels=torch.from_numpy(np.concatenate(labels)),
        inputs=torch.from_numpy(ids.flatten()[labelled]),
        size=sum(map(len, rows)),
        sizes=torch.tensor(list(map(len, labels))),
    )


# Of a row that a rollout may have taken the place of: whether it did.
SAMPLED = "sampled"
# Of a row that may be older than its step: log q of its labels by the weights that wrote them, and of their k most probable tokens.
WRITTEN, WRITTEN_TOP_K_IDS, WRITTEN_TOP_K = "written_log_probabilities", "written_top_k_ids", "written_top_k"
# What the rows of all teachers have in common.
OF_TEXT = (SAMPLED, WRITTEN, WRITTEN_TOP_K_IDS, WRITTEN_TOP_K)


@dataclass
class Collator:
    """Rows of a prepared dataset to a batch, padded (an example a row, a mask) or packed (docs/batches.md; no mask: position ids).

    Labelled positions are numbered through the batch example by example, turn by turn, so pairs point at the same tokens whatever the
    layout.

    Attributes:
        padding_side: `left` or `right`.
        packing: Several examples a row.
        row_length: About the length of a packed row; by default the longest example's.
        by_position: Pair the k-th labelled token of a turn with the other model's k-th, not as the rows say.
    """

    padding_side: str = "right"
    packing: bool = False
    row_length: int | None = None
    by_position: bool = False

    def __call__(self, rows: Sequence[dict[str, Any]]) -> TokenBatch:
        student = self._side(rows, "student")
        if "teacher_ids" not in rows[0]:
            return TokenBatch(student)
        teacher = self._side(rows, "teacher")
        if self.by_position:
            teacher.pairs, student.pairs = pairs_by_position(teacher.sizes, student.sizes)
        student.pairs_on_host = student.pairs
        if SAMPLED in rows[0]:
            turns = [row[SAMPLED] for row in rows for _ in label_spans(row, "student")]
            student.sampled = torch.tensor(turns).repeat_interleave(student.sizes)
            _add_written(student, rows)
        if "teacher_row" in rows[0]:
            own = [row["teacher_row"] for row in rows]
            teacher.cache_rows = torch.tensor([k for one in own for k in (one if isinstance(one, list) else [one])])
        return TokenBatch(student, teacher)

    def _side(self, rows: Sequence[dict[str, Any]], name: str) -> SideTokens:
        ids = [row[f"{name}_ids"] for row in rows]
        spans = [label_spans(row, name) for row in rows]
        side = _side(ids, spans, self._layout(list(map(len, ids))), self.packing)
        if f"{name}_pairs" in rows[0]:
            totals = np.cumsum([0, *(sum(last - first for first, last in own) for own in spans)])
            first = totals[:-1].tolist()
            pairs = [k + np.asarray(row[f"{name}_pairs"], dtype=np.int64) for k, row in zip(first, rows, strict=True)]
            side.pairs = torch.from_numpy(np.concatenate(pairs))
        if f"{name}_groups" in rows[0]:
            side.groups = torch.from_numpy(_numbered([row[f"{name}_groups"] for row in rows]))
        return side

    def _layout(self, lengths: Sequence[int]) -> _Layout:
        width = max(lengths)
        if self.packing:
            return _packed(lengths, self.row_length or width)
        places = [(k, width - n if self.padding_side == "left" else 0) for k, n in enumerate(lengths)]
        return _Layout(len(lengths), width, places)


def _add_written(student: SideTokens, rows: Sequence[dict[str, Any]]) -> None:
    """What the weights that wrote the rows thought of them: 0 where a label is the data's; no top k unless every row has it."""
    if any(WRITTEN in row for row in rows):
        counts = [sum(last - first for first, last in label_spans(row, "student")) for row in rows]
        known = [row.get(WRITTEN) or [0.0] * count for row, count in zip(rows, counts, strict=True)]
        student.written_log_probabilities = torch.tensor([value for own in known for value in own])
    if all(WRITTEN_TOP_K in row for row in rows):
        student.written_top_k_ids = torch.tensor([ids for row in rows for ids in row[WRITTEN_TOP_K_IDS]])
        student.written_top_k_log_probabilities = torch.tensor([top for row in rows for top in row[WRITTEN_TOP_K]])


def _numbered(groups: Sequence[Sequence[int]]) -> np.ndarray:
    """The groups of each example, numbered on through the batch; the two sides of an example have the same number of them."""
    shifted = []
    first = 0
    for example in groups:
        numbers = np.asarray(example, dtype=np.int64)
        shifted.append(np.where(numbers == UNKNOWN, UNKNOWN, numbers + first))
        first += int(numbers.max(initial=UNKNOWN)) + 1
    return np.concatenate(shifted)


def pairs_by_position(teacher_sizes: Tensor, student_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """(teacher's, student's) pairs: the k-th labelled token of an example with the other model's k-th, as far as both have one."""
    common = torch.minimum(teacher_sizes, student_sizes)
    within = torch.arange(int(common.sum())) - (common.cumsum(0) - common).repeat_interleave(common)

    def places(sizes: Tensor) -> Tensor:
        return (sizes.cumsum(0) - sizes).repeat_interleave(common) + within

    return places(teacher_sizes), places(student_sizes)

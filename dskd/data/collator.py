"""Rows of a prepared dataset (dskd/data/preparation.py) to the tensors of a batch: padded or packed, flat where there is a label."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.tokenization.alignment import UNKNOWN

NEGLIGIBLE_PADDING = 0.02


@dataclass(frozen=True)
class _Layout:
    """Where each example of a batch stands: its row and first column, in a tensor of `rows` times `width`."""

    rows: int
    width: int
    places: list[tuple[int, int]]


def _padded(lengths: Sequence[int], padding_side: str) -> _Layout:
    """One example a row, every row as wide as the longest."""
    width = max(lengths)
    return _Layout(
        len(lengths), width, [(k, width - n if padding_side == "left" else 0) for k, n in enumerate(lengths)]
    )


def _packed(lengths: Sequence[int], row_length: int) -> _Layout:
    """Several examples a row, rows nearly equally long and of about `row_length`. No example is split.

    Each example, longest first, goes to the row that is the shortest so far (longest processing time). Of the numbers of rows that
    make them one to one and a half times row_length, the first with hardly any padding is taken, or the one with the least; larger
    numbers are tried first, for short rows cost attention less.
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
    rows: Sequence[Sequence[int]], prompt_lengths: Sequence[int], layout: _Layout, packed: bool
) -> dict[str, Any]:
    """input_ids, position_ids and, unless packed, attention_mask [rows, width]; labelled and labels [tokens]; size, a count.

    The hidden state at flat position labelled[t] is to predict labels[t]; t runs through the examples in the order given.
    """
    shape = layout.rows, layout.width
    ids = np.zeros(shape, dtype=np.int64)  # padding may be any id: nothing attends to it and nothing labels it
    mask = np.zeros(shape, dtype=np.int64)
    positions = np.zeros(shape, dtype=np.int64)
    labelled, labels = [], []
    for values, start, (row, column) in zip(rows, prompt_lengths, layout.places, strict=True):
        end = column + len(values)
        ids[row, column:end] = values
        mask[row, column:end] = 1
        # Each example counts from 0: models with absolute positions would count what stands before it.
        positions[row, column:end] = np.arange(len(values))
        first = row * layout.width + column
        labelled.append(np.arange(first + start - 1, first + len(values) - 1))
        labels.append(np.asarray(values[start:], dtype=np.int64))
    if packed:
        # What is left at a row's end is an example of its own, so that it keeps out of the last one's attention.
        for row, used in enumerate(mask.sum(1).tolist()):
            positions[row, used:] = np.arange(layout.width - used)
    side = {"input_ids": ids, "position_ids": positions}
    if not packed:
        side["attention_mask"] = mask
    side |= {"labelled": np.concatenate(labelled), "labels": np.concatenate(labels)}
    return {name: torch.from_numpy(value) for name, value in side.items()} | {"size": torch.tensor(sum(map(len, rows)))}


# Of a row that a rollout may have taken the place of: whether it did.
SAMPLED = "sampled"


@dataclass
class Collator:
    """Rows of a prepared dataset to a batch, keys `student_*` and, with a teacher, `teacher_*`.

    Labelled positions are numbered through the batch example by example, so pairs point at the same tokens whatever the layout.
    Padded, each example is a row and an attention mask covers it. Packed, each side's rows hold several examples (docs/batches.md)
    and there is no mask: position ids that begin again at 0 tell transformers where the next one starts. `row_length` is about
    the length of a packed row, by default the longest example's. Where rows say whether they were sampled (dskd/rollouts/rollouts.py),
    student_sampled [tokens] says so of each label.
    """

    padding_side: str = "right"
    packing: bool = False
    row_length: int | None = None

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = {}
        for name in ("student", "teacher"):
            if f"{name}_ids" not in rows[0]:
                continue
            ids = [row[f"{name}_ids"] for row in rows]
            starts = [row[f"{name}_prompt_length"] for row in rows]
            lengths = list(map(len, ids))
            layout = self._layout(lengths)
            batch |= {f"{name}_{key}": value for key, value in _side(ids, starts, layout, self.packing).items()}
            if f"{name}_pairs" in rows[0]:
                first = np.cumsum([0] + [length - start for length, start in zip(lengths, starts, strict=True)])
                for key in (f"{name}_pairs", f"{name}_string_pairs"):
                    if key in rows[0]:
                        pairs = [first[k] + np.asarray(row[key], dtype=np.int64) for k, row in enumerate(rows)]
                        batch[key] = torch.from_numpy(np.concatenate(pairs))
                batch[f"{name}_sizes"] = torch.from_numpy(np.diff(first))
            if f"{name}_groups" in rows[0]:
                batch[f"{name}_groups"] = torch.from_numpy(_numbered([row[f"{name}_groups"] for row in rows]))
            if name == "student" and SAMPLED in rows[0]:
                flags = torch.tensor([row[SAMPLED] for row in rows])
                batch["student_sampled"] = flags.repeat_interleave(
                    torch.tensor([length - start for length, start in zip(lengths, starts, strict=True)])
                )
        if "teacher_pairs" in batch:
            batch |= pairs_by_position(batch["teacher_sizes"], batch["student_sizes"])
        if "teacher_row" in rows[0]:
            batch["teacher_rows"] = torch.tensor([row["teacher_row"] for row in rows])
        return batch

    def _layout(self, lengths: Sequence[int]) -> _Layout:
        if self.packing:
            return _packed(lengths, self.row_length or max(lengths))
        return _padded(lengths, self.padding_side)


def _numbered(groups: Sequence[Sequence[int]]) -> np.ndarray:
    """The groups of each example, numbered on through the batch; the two sides of an example have the same number of them."""
    shifted = []
    first = 0
    for example in groups:
        numbers = np.asarray(example, dtype=np.int64)
        shifted.append(np.where(numbers == UNKNOWN, UNKNOWN, numbers + first))
        first += int(numbers.max(initial=UNKNOWN)) + 1
    return np.concatenate(shifted)


def pairs_by_position(teacher_sizes: Tensor, student_sizes: Tensor) -> dict[str, Tensor]:
    """The k-th labelled token of an example paired with the other model's k-th, as far as both have one."""
    common = torch.minimum(teacher_sizes, student_sizes)
    within = torch.arange(int(common.sum())) - (common.cumsum(0) - common).repeat_interleave(common)
    return {
        f"{name}_position_pairs": (sizes.cumsum(0) - sizes).repeat_interleave(common) + within
        for name, sizes in (("teacher", teacher_sizes), ("student", student_sizes))
    }

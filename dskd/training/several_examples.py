"""Examples of several teachers: which of them teaches an example, and the rows of each in a batch.

Each teacher has a dataset of its own, prepared for the student and this teacher. Where a column routes examples, each is in one of
them. Where several teach the same examples, those count that all have: the same student's tokens with the same labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.data.collator import OF_TEXT, Collator
from dskd.data.rows import label_spans
from dskd.errors import InputError
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.rollouts.several import ROWS
from dskd.teachers.cache_source import rows_of, turn_digests

_NONE = -1


class SeveralDatasets:
    """Examples as items `{"rows": {teacher: row}, "example": number}`.

    Attributes:
        datasets: The prepared dataset of each teacher.
        places: int64 [examples, teachers], the row of each example in the dataset of each, -1 where that does not teach it.
        numbers: int64 [examples], which stay those of the whole in a selection.
        unmatched: Rows of each dataset that are in no item.
    """

    def __init__(
        self,
        datasets: Mapping[str, Any],
        places: np.ndarray,
        numbers: np.ndarray | None = None,
        unmatched: Mapping[str, int] | None = None,
    ) -> None:
        self.datasets = dict(datasets)
        self.places = places
        self.numbers = np.arange(len(places)) if numbers is None else numbers
        self.unmatched = dict(unmatched or dict.fromkeys(datasets, 0))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> dict[str, Any]:
        own = zip(self.datasets.items(), self.places[number].tolist(), strict=True)
        rows = {name: dataset[place] for (name, dataset), place in own if place != _NONE}
        return {ROWS: rows, "example": int(self.numbers[number])}

    def select(self, numbers: Sequence[int]) -> SeveralDatasets:
        """Some of the examples, in this order."""
        chosen = np.asarray(numbers, dtype=np.int64)
        return SeveralDatasets(self.datasets, self.places[chosen], self.numbers[chosen], self.unmatched)

    def taught(self) -> dict[str, int]:
        """How many examples each teacher teaches."""
        return dict(zip(self.datasets, (self.places != _NONE).sum(0).tolist(), strict=True))

    def largest(self, values: Callable[[Any], np.ndarray]) -> np.ndarray:
        """The largest of what teachers' datasets say of an example [examples]; values: dataset -> [its rows]."""
        found = np.zeros(len(self), dtype=np.int64)
        for dataset, places in zip(self.datasets.values(), self.places.T, strict=True):
            own = places != _NONE
            found[own] = np.maximum(found[own], np.asarray(values(dataset), dtype=np.int64)[places[own]])
        return found


def routed(datasets: Mapping[str, Any]) -> SeveralDatasets:
    """All examples of all teachers, each taught by the one whose dataset has it; dataset by dataset in their order."""
    sizes = [len(dataset) for dataset in datasets.values()]
    places = np.full((sum(sizes), len(sizes)), _NONE, dtype=np.int64)
    first = 0
    for column, size in enumerate(sizes):
        places[first : first + size, column] = np.arange(size)
        first += size
    return SeveralDatasets(datasets, places)


def matched(datasets: Mapping[str, Any]) -> SeveralDatasets:
    """The examples that all teachers have, in the order of the first dataset. InputError where there is none."""
    found: dict[tuple[bytes, int], list[int]] = {}
    for dataset in datasets.values():
        seen: dict[bytes, int] = {}
        for place, (ids, spans) in enumerate(rows_of(dataset, "student")):
            digest = b"".join(turn_digests(ids, spans))
            seen[digest] = seen.get(digest, 0) + 1
            found.setdefault((digest, seen[digest]), []).append(place)  # an example may be there several times
    kept = [places for places in found.values() if len(places) == len(datasets)]
    if not kept:
        raise InputError(
            f"teachers {', '.join(datasets)}: no example is in the data of all; fix: prepare it from the same file with the same "
            "max_length, for the same student"
        )
    unmatched = {name: len(dataset) - len(kept) for name, dataset in datasets.items()}
    return SeveralDatasets(datasets, np.array(kept, dtype=np.int64), unmatched=unmatched)


@dataclass
class TeacherPart:
    """What a teacher teaches of a micro-batch.

    Attributes:
        tokens: Both sides of its examples; of the student's the labelled tokens alone.
        index: [tokens], which of the batch's labelled tokens these are; None for all of them.
    """

    tokens: TokenBatch
    index: Tensor | None


@dataclass
class SeveralBatch:
    """A micro-batch of several teachers.

    Attributes:
        student: The student's tokens of all examples.
        parts: By teacher; one without an example here has none.
    """

    student: SideTokens
    parts: dict[str, TeacherPart] = field(default_factory=dict)

    def to(self, device: Any) -> SeveralBatch:
        """A copy on a device."""
        moved = {
            name: TeacherPart(part.tokens.to(device), None if part.index is None else part.index.to(device))
            for name, part in self.parts.items()
        }
        return SeveralBatch(self.student.to(device), moved)


@dataclass
class SeveralCollator:
    """Items of `SeveralDatasets` to a batch. The student reads all of them at once, and each teacher its own.

    Attributes:
        collator: Of the rows of one teacher.
    """

    collator: Collator

    def __call__(self, items: Sequence[dict[str, Any]]) -> SeveralBatch:
        rows = [_of_student(item) for item in items]
        batch = SeveralBatch(self.collator(rows).student)
        counts = [sum(last - first for first, last in label_spans(row, "student")) for row in rows]
        ends = np.cumsum(counts)
        for name in sorted({name for item in items for name in item[ROWS]}):
            own = [number for number, item in enumerate(items) if name in item[ROWS]]
            tokens = self.collator([_of_teacher(items[number], name) for number in own])
            index = None
            if len(own) < len(items):
                places = [np.arange(ends[number] - counts[number], ends[number]) for number in own]
                index = torch.from_numpy(np.concatenate(places))
            # The student has read these tokens with all others.
            absent: Any = dict.fromkeys(("input_ids", "position_ids", "attention_mask", "labelled"))
            tokens.student = replace(tokens.student, **absent)
            batch.parts[name] = TeacherPart(tokens, index)
        return batch


@dataclass
class StudentCollator:
    """Items of `SeveralDatasets` to a batch of the student's tokens alone, for methods without a teacher."""

    collator: Collator

    def __call__(self, items: Sequence[dict[str, Any]]) -> TokenBatch:
        return self.collator([_of_student(item) for item in items])


def _of_student(item: Mapping[str, Any]) -> dict[str, Any]:
    """The student's tokens of an item and what is labelled of them, which are the same in the rows of all its teachers."""
    row = next(iter(item[ROWS].values()))
    names = ("student_ids", "student_prompt_length", "student_label_spans")
    return {name: row[name] for name in names if name in row}


def _of_teacher(item: Mapping[str, Any], name: str) -> dict[str, Any]:
    row = item[ROWS][name]
    return {**row, **{key: item[key] for key in OF_TEXT if key in item}}

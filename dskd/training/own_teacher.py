"""The data of a method that learns from the student's own text and asks no teacher about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from dskd.data.rows import label_spans

_READ = ("ids", "prompt_length", "label_spans")


def as_its_own_teacher(dataset: Any) -> Any:
    """A prepared dataset in which the student's tokens stand for the teacher's, all of them paired, each a group of its own."""
    own = [name for name in (f"student_{kind}" for kind in _READ) if name in dataset.column_names]
    dataset = dataset.select_columns(own)
    table = dataset.with_format("arrow")[:]
    counts = np.array([sum(last - first for first, last in label_spans(row, "student")) for row in dataset])
    offsets = np.concatenate([[0], counts.cumsum()])
    numbers = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    every = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(numbers))
    for name in own:
        dataset = dataset.add_column(name.replace("student", "teacher", 1), table[name].combine_chunks())
    for name in (f"{side}_{kind}" for kind in ("pairs", "groups") for side in ("teacher", "student")):
        dataset = dataset.add_column(name, every)
    return dataset

"""Pairs of labels that a method finds by its own means."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pyarrow as pa

from dskd.data.rows import label_spans
from dskd.methods.base import UsesTokenizers


def with_own_pairs(dataset: Any, method: UsesTokenizers) -> Any:
    """The dataset with the pairs of labels that the method finds, in place of those on the same bytes."""
    # Python's lists would be ten times as large.
    columns = {name: ([0], array("i")) for name in ("student_pairs", "teacher_pairs")}
    for row in dataset:
        spans = [label_spans(row, side) for side in ("student", "teacher")]
        before = [0, 0]
        for turn in zip(*spans, strict=True):
            labels = (row[f"{side}_ids"][a:b] for side, (a, b) in zip(("student", "teacher"), turn, strict=True))
            for k, ((_, values), pairs) in enumerate(zip(columns.values(), method.pair(*labels), strict=True)):
                values.extend(before[k] + number for number in pairs)
                before[k] += turn[k][1] - turn[k][0]
        for offsets, values in columns.values():
            offsets.append(len(values))
    dataset = dataset.remove_columns(list(columns))
    for name, (offsets, values) in columns.items():
        lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(np.asarray(values)))
        dataset = dataset.add_column(name, lists)
    return dataset

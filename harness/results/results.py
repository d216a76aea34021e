"""What tables are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.results.item_scores import Items
from harness.runs.records import Record


@dataclass(frozen=True)
class Results:
    """Records and item scores of a run or of an export.

    Attributes:
        records: all records that can be read.
        items: the item scores of each evaluation that has samples, by `record.cell.key`.
        problems: a message for each file that cannot be read.
    """

    records: list[Record]
    items: Mapping[str, Items]
    problems: list[str]

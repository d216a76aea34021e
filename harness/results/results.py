"""What tables are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.results.item_scores import Items
from harness.runs.records import Record


@dataclass(frozen=True)
class Results:
    """The records and item scores of a run or of an export."""

    records: list[Record]
    items: Mapping[str, Items]  # by `record.cell.key`; of evaluations with samples
    problems: list[str]  # a message for each file that cannot be read

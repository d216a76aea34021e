"""What tables are made of: records and the scores of their items, from the folder of a run or from committed records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dskd.errors import InputError
from harness.protocols import GREEDY
from harness.results.item_scores import Items, read_items
from harness.runs.records import Record, read_record
from harness.runs.store import SAMPLES, result_files


@dataclass(frozen=True)
class Results:
    """Records, and by `key_of` the items of those evaluations that have them. `problems`, in words: files that are none."""

    records: list[Record]
    items: Mapping[str, Items]
    problems: list[str]


def protocol_of(record: Record) -> str:
    """The label of the decoding protocol of an evaluation."""
    return (record.cell.protocol or GREEDY).label


def key_of(record: Record) -> str:
    """What a record is about, as one string: cell, task with version, protocol."""
    return record.cell.model_dump_json()


def load_results(root: Path) -> Results:
    """The records under a folder, with the scores of their items where they have samples."""
    from harness.results.export import is_committed, read_committed

    if is_committed(root):
        return read_committed(root)
    records: list[Record] = []
    items: dict[str, Items] = {}
    problems: list[str] = []
    for path in result_files(root):
        try:
            record = read_record(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        records.append(record)
        if record.status == "done" and record.cell.task is not None and (path.parent / SAMPLES).is_file():
            try:
                items[key_of(record)] = read_items(path.parent)
            except InputError as error:
                problems.append(str(error))
    return Results(records, items, problems)

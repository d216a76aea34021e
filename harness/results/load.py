"""Reads records and item scores from the folder of a run, or from an export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dskd.errors import InputError
from harness.results.export import is_export, read_export
from harness.results.item_scores import Items, Results, read_items
from harness.runs.records import Record, read_record
from harness.runs.store import SAMPLES, result_files


def load_results(root: Path) -> Results:
    """The results under a folder, be it a run, several runs, or an export."""
    if is_export(root):
        return read_export(root)
    records, unreadable = read_records(root)
    items, damaged = read_all_items({path.parent: record for path, record in records.items()})
    return Results(list(records.values()), items, [*unreadable.values(), *damaged.values()])


def read_records(root: Path) -> tuple[dict[Path, Record], dict[Path, str]]:
    """The records under a run's folder by path, and by path a message for each that cannot be read."""
    records, unreadable = {}, {}
    for path in result_files(root):
        try:
            records[path] = read_record(path)
        except ValueError as error:
            unreadable[path] = str(error)
    return records, unreadable


def read_all_items(records: Mapping[Path, Record]) -> tuple[dict[str, Items], dict[Path, str]]:
    """The item scores of the evaluations among these records, which are by folder.

    Returns the items by `record.cell.key`, and by folder a message for each `samples.jsonl` that cannot be read. Evaluations without
    this file are in neither.
    """
    items, damaged = {}, {}
    for folder, record in records.items():
        if record.cell.task is not None and record.status == "done" and (folder / SAMPLES).is_file():
            try:
                items[record.cell.key] = read_items(folder)
            except InputError as error:
                damaged[folder] = str(error)
    return items, damaged

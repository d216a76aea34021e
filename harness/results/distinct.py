"""Which of many records count: each cell once, and of each task its newest version."""

from __future__ import annotations

from collections.abc import Sequence

from dskd.errors import InputError
from harness.runs.identity import differences
from harness.runs.records import Record


def distinct_records(records: Sequence[Record]) -> list[Record]:
    """The records, each cell once.

    Raises:
        InputError: Where two records of one cell were made with different settings, as when folders of several runs are read together.
    """
    distinct: dict[str, Record] = {}
    for record in records:
        cell = record.cell
        first = distinct.setdefault(cell.key, record)
        if first.identity.hash != record.identity.hash:
            parts = (cell.teacher, cell.student, cell.method, cell.seed, cell.column)
            changed = differences(first.identity.parts, record.identity.parts)
            raise InputError(
                f"{'/'.join(str(part) for part in parts if part)}: two records with different settings ({changed[0]}); "
                "fix: give the folder of one run"
            )
    return list(distinct.values())


def newest_versions(evaluations: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """The records of the newest version of each task, because a column shows one version; and notes on the others."""
    newest: dict[str, str] = {}
    for record in evaluations:
        task, version = str(record.cell.column), str(record.cell.task_version)
        newest[task] = max(newest.get(task, version), version, key=_version_order)
    shown = [record for record in evaluations if record.cell.task_version == newest[str(record.cell.column)]]
    versions = {(str(record.cell.column), str(record.cell.task_version)) for record in evaluations}
    dropped = sorted(f"{task}@v{version}" for task, version in versions if version != newest[task])
    notes = [f"left out, because there is a newer version of the task: {name}" for name in dropped]
    return shown, notes


def _version_order(version: str) -> tuple[tuple[int, int | str], ...]:
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in version.split("."))

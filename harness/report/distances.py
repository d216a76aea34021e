"""Distances from the teacher, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.results.distances import DistanceRecord, read_distances
from harness.tables.distances import NAMES, TEXTS, TITLES, distance_rows
from harness.tables.rows import Leaderboard


def distances_of(roots: Sequence[Path], board: Leaderboard) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows of the task versions that the tables show, and a message for each record that cannot be read."""
    records: dict[tuple[str, str, str], DistanceRecord] = {}
    problems = []
    for root in roots:
        found, unreadable = read_distances(root)
        # A record that several folders hold counts once.
        records |= {(each.cell.key, each.teacher, each.identity.hash): each for each in found}
        problems += [text.replace(str(root), root.resolve().name, 1) for text in unreadable]
    versions = {row.column: row.task_version for row in board.rows}
    rows = [row for row in distance_rows(records.values()) if versions.get(row.column) == row.task_version]
    return [
        {
            **asdict(row),
            "task": row.column,
            "text": TEXTS[row.text],
            "values": [{"name": TITLES[name], **asdict(row.values[name])} for name in NAMES if name in row.values],
        }
        for row in rows
    ], problems

"""Scores for the page: the rows of the leaderboard, with the score of each seed; and the environments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.report.results import Result
from harness.tables.rows import REASONING_FIELDS, Leaderboard


def score_rows(board: Leaderboard, results: Sequence[Result]) -> list[dict[str, Any]]:
    """The rows of the leaderboard, with `by_seed`: [seed, score] of each seed with a score.

    `task` is the title of the column, which includes a protocol other than greedy. Rows of a column in which a model reasons have
    what that cost as `reasoning`.
    """
    seeds: dict[tuple[Any, ...], list[list[Any]]] = {}
    for result in results:
        record, cell = result.record, result.record.cell
        value = record.metrics[record.headline].value if record.headline else None
        if value is not None and cell.seed is not None:
            key = cell.teacher, cell.student, cell.method, cell.column, cell.task_version
            seeds.setdefault(key, []).append([cell.seed, round(value, 4)])
    rows = []
    for row in board.rows:
        key = row.teacher, row.student, row.method, row.column, row.task_version
        own: dict[str, Any] = {"task": row.column, "by_seed": sorted(seeds.get(key, []))}
        if (reasoning := board.reasoning_of(row)) is not None:
            own["reasoning"] = {name: getattr(reasoning, name) for name in REASONING_FIELDS}
        rows.append(asdict(row) | own)
    return rows


def environments(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The different environments of the records, with the number of records of each."""
    by_environment: dict[str, dict[str, Any]] = {}
    for result in results:
        environment = result.record.environment
        new_entry = {**environment.model_dump(mode="json"), "records": 0}
        entry = by_environment.setdefault(environment.model_dump_json(), new_entry)
        entry["records"] += 1
    return sorted(by_environment.values(), key=lambda entry: -entry["records"])

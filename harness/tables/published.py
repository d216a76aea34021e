"""Other people's numbers beside ours: in tables of their own, with their source, never ranked and never averaged with ours."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from harness.matrix import TEACHER_METHOD
from harness.tables.leaderboard import Leaderboard

FILE = Path(__file__).parents[1] / "published.yaml"


class Published(BaseModel):
    """A table of one source for one pair: for each method a value for each task."""

    model_config = ConfigDict(extra="forbid")
    source: str
    teacher: str
    student: str
    tasks: list[str]
    values: dict[str, list[float]]

    @model_validator(mode="after")
    def _complete(self) -> Published:
        for method, values in self.values.items():
            if len(values) != len(self.tasks):
                raise ValueError(f"{method}: {len(values)} values for {len(self.tasks)} tasks")
        return self


@cache
def published() -> list[Published]:
    """All that is known."""
    return [Published.model_validate(entry) for entry in yaml.safe_load(FILE.read_text(encoding="utf-8"))]


def published_text(board: Leaderboard) -> str:
    """Markdown: for each pair that a source has, its values in columns beside ours."""
    parts = []
    for table in published():
        if (table.teacher, table.student) not in board.pairs:
            continue
        header = ["method", *(f"{task} {whose}" for task in table.tasks for whose in ("published", "ours"))]
        lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
        for method, values in table.values.items():
            cells = [method]
            for task, value in zip(table.tasks, values, strict=True):
                student = None if method == TEACHER_METHOD else table.student
                ours = [
                    row
                    for row in board.rows
                    if (row.teacher, row.student, row.method, row.task) == (table.teacher, student, method, task)
                ]
                shown = ", ".join(f"{row.value:.2f} ({row.protocol})" for row in ours if row.value is not None)
                cells += [f"{value:.2f}", shown or "–"]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append(
            f"### {table.teacher} -> {table.student}: published in {table.source}\n\n" + "\n".join(lines) + "\n"
        )
    return "\n".join(parts) or "No published numbers are kept for these pairs (harness/published.yaml).\n"

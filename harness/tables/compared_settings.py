"""How the settings of two methods that are compared were chosen, and what makes their comparison unfair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.config.cells import TEACHER_METHOD
from harness.config.tuning import TUNED, base_name
from harness.runs.records import Record
from harness.tables.setting_text import settings_text
from harness.tables.tuning_grids import COST_HEADER, cost_cells
from harness.tables.tuning_rows import TuningRow, tuned_methods, unequal_budgets

HEADER = ("teacher", "student", "method", "chosen setting", "validation", "budget", *COST_HEADER)


@dataclass(frozen=True)
class ComparedSetting:
    """One side of a comparison on one pair.

    Attributes:
        name: What its results are called: the method, or of two runs also which run.
        method: Its name.
        tuning: How its setting was chosen; None for a default setting.
    """

    teacher: str
    student: str
    name: str
    method: str
    tuning: TuningRow | None

    @property
    def cells(self) -> list[str]:
        """A line of a table, in the order of `HEADER`."""
        names, row = [self.teacher, self.student, self.name], self.tuning
        if row is None:
            return [*names, "the default, not tuned", "–", "–", *cost_cells(None)]
        score = f"{row.score:.1f}"
        return [*names, settings_text(row.settings), score, row.allowed, *cost_cells(row)]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        tuning = None if self.tuning is None else asdict(self.tuning)
        return {"teacher": self.teacher, "student": self.student, "name": self.name, "tuning": tuning}


def settings_of_methods(
    records: Sequence[Record], methods: Sequence[str], pairs: Collection[tuple[str, str]]
) -> tuple[list[ComparedSetting], list[str]]:
    """The settings of two methods of a run on some pairs, and what is unfair. Nothing where neither is tuned."""
    found = _by_cell(records)
    sides = [
        [ComparedSetting(*pair, method, method, found.get((*pair, method))) for method in methods]
        for pair in sorted(pairs)
    ]
    return _said(sides)


def settings_of_runs(
    a: Sequence[Record], b: Sequence[Record], cells: Collection[tuple[str, str, str]]
) -> tuple[list[ComparedSetting], list[str]]:
    """The same of the cells (teacher, student, method) that two runs both have."""
    runs = {"A": _by_cell(a), "B": _by_cell(b)}
    sides = [
        [ComparedSetting(*cell[:2], f"{cell[2]} of {name}", cell[2], found.get(cell)) for name, found in runs.items()]
        for cell in sorted(cells)
    ]
    return _said(sides)


def _by_cell(records: Sequence[Record]) -> Mapping[tuple[str, str, str], TuningRow]:
    return {(*each.row.pair, each.row.method): each.row for each in tuned_methods(records)[0]}


def _said(sides: Sequence[Sequence[ComparedSetting]]) -> tuple[list[ComparedSetting], list[str]]:
    shown: list[ComparedSetting] = []
    notes: list[str] = []
    for pair in sides:
        if not any(side.tuning for side in pair):
            continue
        shown += [side for side in pair if side.method != TEACHER_METHOD]
        notes += _unfair(pair)
    return shown, list(dict.fromkeys(notes))


def _unfair(pair: Sequence[ComparedSetting]) -> list[str]:
    tuned = [side for side in pair if side.tuning is not None]
    other = next((side for side in pair if side.tuning is None), None)
    if other is None:
        return unequal_budgets([side.tuning for side in tuned if side.tuning is not None])
    # A method and its own default: what tuning gave. The teacher is what both are measured by.
    if other.method == TEACHER_METHOD or base_name(tuned[0].method) == other.method != tuned[0].method:
        return []
    fix = "tune it in both" if other.method == tuned[0].method else f"compare with {base_name(other.method)}+{TUNED}"
    return [
        f"{other.teacher} -> {other.student}: {tuned[0].name} is tuned and {other.name} is not: not a fair comparison; fix: {fix}"
    ]

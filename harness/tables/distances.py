"""Distances from the teacher as tables: a row for each model, task and kind of text, over its seeds (docs/distances.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import get_args

from harness.protocols import column_title
from harness.results.distances import DistanceName, DistanceRecord, DistanceValue, TextName

NAMES: tuple[DistanceName, ...] = get_args(DistanceName)
TEXTS: dict[TextName, str] = {"own_answers": "own answers", "reference_answers": "reference answers"}
# What a table calls each number.
TITLES: dict[DistanceName, str] = {
    "kl_teacher_student": "KL(teacher, student)",
    "kl_student_teacher": "KL(student, teacher)",
    "top_k_overlap": "top-k overlap",
    "overlap_advantage": "overlap advantage",
    "student_entropy": "entropy of the student",
    "teacher_entropy": "entropy of the teacher",
    "log_likelihood_difference": "log-likelihood difference per byte",
    "aligned_share": "aligned share",
    "length_ratio": "length by reference",
    "cut_off_share": "cut off",
}


@dataclass(frozen=True)
class DistanceCell:
    """One number of a row: the mean over the seeds; `sd` of several seeds, `ci95` of one. `value` is null with a `reason`."""

    value: float | None
    sd: float | None
    ci95: tuple[float, float] | None
    seeds: int
    n: int
    reason: str | None = None


@dataclass(frozen=True)
class DistanceRow:
    """The distances of one model on one task and kind of text.

    `compared` is the teacher that it is compared with; `teacher` may stand for several. `form`, `space` and `sources` are those of
    the seeds, joined where they differ. `length_by_teacher`: its answers' length by that of the teacher's, where both are known.
    """

    teacher: str
    student: str | None
    method: str
    task: str
    task_version: str
    protocol: str
    text: TextName
    compared: str
    sources: str
    form: str
    space: str
    values: dict[DistanceName, DistanceCell] = field(default_factory=dict)
    length_by_teacher: float | None = None

    @property
    def column(self) -> str:
        """The task, and the decoding protocol if it is not greedy."""
        return column_title(self.task, self.protocol)

    @property
    def key(self) -> tuple[object, ...]:
        """What it is about, the method aside."""
        return self.teacher, self.student, self.task, self.task_version, self.protocol, self.text, self.compared


def distance_rows(records: Iterable[DistanceRecord]) -> list[DistanceRow]:
    """A row for each model, task, kind of text and teacher, sorted, those of a teacher itself first."""
    groups: dict[tuple[str, ...], list[DistanceRecord]] = {}
    for record in records:
        cell = record.cell
        key = (
            cell.teacher,
            cell.student or "",
            cell.method,
            cell.column or "",
            cell.task_version or "",
            record.teacher,
        )
        groups.setdefault(key, []).append(record)
    found = [_row(groups[key], text) for key in sorted(groups) for text in TEXTS if _has(groups[key], text)]
    teachers = (row for row in found if row.student is None and row.text == "own_answers")
    own = {(row.teacher, row.column, row.task_version): row for row in teachers}
    return [_beside_teacher(row, own.get((row.compared, row.column, row.task_version))) for row in found]


def _has(records: Sequence[DistanceRecord], text: TextName) -> bool:
    return any(text in record.texts for record in records)


def _row(records: Sequence[DistanceRecord], text: TextName) -> DistanceRow:
    cell = records[0].cell
    found = [record.texts[text] for record in records if text in record.texts]

    def said(values: Iterable[object]) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))

    return DistanceRow(
        teacher=cell.teacher,
        student=cell.student,
        method=cell.method,
        task=str(cell.task),
        task_version=str(cell.task_version),
        protocol=cell.protocol_label,
        text=text,
        compared=records[0].teacher,
        sources=said(each.source for each in found),
        form=said(each.form for each in found),
        space=said(each.space for each in found),
        values={name: _cell([each.values[name] for each in found]) for name in NAMES if name in found[0].values},
    )


def _cell(values: Sequence[DistanceValue]) -> DistanceCell:
    known = [each.value for each in values if each.value is not None]
    if len(known) < len(values):
        reason = next(each.reason for each in values if each.value is None)
        return DistanceCell(None, None, None, len(known), sum(each.n for each in values), reason)
    return DistanceCell(
        value=round(fmean(known), 6),
        sd=round(stdev(known), 6) if len(known) > 1 else None,
        ci95=values[0].ci95 if len(values) == 1 else None,
        seeds=len(values),
        n=sum(each.n for each in values),
    )


def _beside_teacher(row: DistanceRow, teacher: DistanceRow | None) -> DistanceRow:
    own, other = (each.values.get("length_ratio") if each is not None else None for each in (row, teacher))
    if row.student is None or row.text != "own_answers" or own is None or other is None or not other.value:
        return row
    ratio = None if own.value is None else round(own.value / other.value, 4)
    return DistanceRow(**{**vars(row), "length_by_teacher": ratio})


@dataclass(frozen=True)
class ComparedDistance:
    """One number of two models, or of one in two runs. There is no test: `difference` is of the means over the seeds."""

    teacher: str
    student: str | None
    method: str
    task: str
    text: TextName
    number: DistanceName
    value_a: float
    value_b: float
    difference: float
    n_a: int
    n_b: int


def compared_methods(rows: Sequence[DistanceRow], a: str, b: str) -> list[ComparedDistance]:
    """The numbers that two methods of a run both have for a pair, task, text and teacher."""
    other = {row.key: row for row in rows if row.method == b}
    pairs = [(row, other[row.key]) for row in rows if row.method == a and row.key in other]
    return [line for pair in pairs for line in _compared(*pair, f"{a} / {b}")]


def compared_runs(a: Sequence[DistanceRow], b: Sequence[DistanceRow]) -> list[ComparedDistance]:
    """The numbers that two runs both have for a cell, text and teacher."""
    other: Mapping[tuple[object, ...], DistanceRow] = {(row.method, *row.key): row for row in b}
    pairs = [(row, other[row.method, *row.key]) for row in a if (row.method, *row.key) in other]
    return [line for row, match in pairs for line in _compared(row, match, row.method)]


def _compared(a: DistanceRow, b: DistanceRow, method: str) -> list[ComparedDistance]:
    found = []
    for name in NAMES:
        first, second = a.values.get(name), b.values.get(name)
        if first is None or second is None or first.value is None or second.value is None:
            continue
        if name.startswith(("kl_", "top_k", "overlap")) and (a.form, a.space) != (b.form, b.space):
            continue  # a bound beside the number itself, or two spaces
        found.append(
            ComparedDistance(
                teacher=a.teacher,
                student=a.student,
                method=method,
                task=a.column,
                text=a.text,
                number=name,
                value_a=first.value,
                value_b=second.value,
                difference=round(first.value - second.value, 6),
                n_a=first.n,
                n_b=second.n,
            )
        )
    return found

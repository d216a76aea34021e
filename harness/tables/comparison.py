"""Two methods of one run, or the same cells of two runs, compared task by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dskd.errors import InputError
from harness.protocols import column_title
from harness.results.item_scores import ItemScores, Kind, stack
from harness.results.load import Results, key_of, protocol_of
from harness.statistics.paired_tests import compare, holm

KEYS = ("teacher", "student", "method", "task")
ALPHA = 0.05


@dataclass(frozen=True)
class Cell:
    """What is compared, seeds aside."""

    teacher: str
    student: str | None
    method: str
    task: str
    version: str
    protocol: str
    metric: str


@dataclass(frozen=True)
class Line:
    """One comparison; values and differences in points, over the shared items. `p_holm` is adjusted over all lines."""

    teacher: str
    student: str | None
    method: str
    task: str
    task_version: str
    protocol: str
    metric: str
    value_a: float
    value_b: float
    difference: float
    ci95: tuple[float, float]
    p_value: float
    p_holm: float
    mde80: float
    n_seeds: int
    n_items: int
    n_excluded: int
    n_prompts_differ: int
    test: str
    verdict: str


def compare_methods(results: Results, a: str, b: str, only: Mapping[str, set[str]]) -> tuple[list[Line], list[str]]:
    """Method `a` against `b` for every pair and task that has both. InputError for a method that is not there."""
    cells, notes = _cells(results)
    for name in (a, b):
        if name not in {cell.method for cell in cells}:
            known = ", ".join(sorted({cell.method for cell in cells}))
            raise InputError(f"compare: no method {name!r} with samples there; fix: one of {known}")
    pairs = []
    for cell in cells:
        # The teacher's own scores stand beside every student's.
        if cell.method != a:
            continue
        for other in cells:
            alike = replace(other, method=a, student=cell.student) == cell
            if other.method == b and alike and (other.student == cell.student or None in (other.student, cell.student)):
                pairs.append(
                    (
                        replace(cell, method=f"{a} / {b}", student=cell.student or other.student),
                        cells[cell],
                        cells[other],
                    )
                )
    return _compared(pairs, only, notes, {a, b})


def compare_runs(a: Results, b: Results, only: Mapping[str, set[str]]) -> tuple[list[Line], list[str]]:
    """Every cell that both runs have. Cells of one run alone are noted."""
    left, notes = _cells(a)
    right, more = _cells(b)
    notes += more
    for name, these, those in (("A", left, right), ("B", right, left)):
        if alone := sum(cell not in those for cell in these):
            notes.append(f"{alone} evaluations are in {name} alone")
    return _compared([(cell, left[cell], right[cell]) for cell in left if cell in right], only, notes, set())


def _cells(results: Results) -> tuple[dict[Cell, ItemScores], list[str]]:
    groups: dict[Cell, list] = {}
    for record in results.records:
        if (items := results.items.get(key_of(record))) is not None:
            cell = record.cell
            place = Cell(
                cell.teacher,
                cell.student,
                cell.method,
                str(cell.task),
                str(cell.task_version),
                protocol_of(record),
                str(record.headline),
            )
            groups.setdefault(place, []).append((record, items))
    found, notes = {}, []
    for place in sorted(groups, key=lambda each: [str(value) for value in vars(each).values()]):
        try:
            found[place] = stack(groups[place], place.metric)
        except InputError as error:
            notes.append(f"left out: {error}")
    return found, notes


def _compared(
    pairs: list[tuple[Cell, ItemScores, ItemScores]], only: Mapping[str, set[str]], notes: list[str], methods: set[str]
) -> tuple[list[Line], list[str]]:
    lines = []
    for cell, a, b in pairs:
        values = {
            "teacher": {cell.teacher},
            "student": {str(cell.student)},
            "method": {cell.method, *methods},
            "task": {cell.task},
        }
        if any(not wanted & values[key] for key, wanted in only.items()):
            continue
        kind: Kind = "binary" if a.kind == b.kind == "binary" else "continuous"
        try:
            # A teacher is asked in its own template, and compared by id alone.
            found = compare(a, b, kind, same_prompts=not (a.fixed or b.fixed))
        except InputError as error:
            notes.append(f"{cell.teacher} -> {cell.student}, {cell.method}, {cell.task}: {error}")
            continue
        lines.append(
            Line(
                teacher=cell.teacher,
                student=cell.student,
                method=cell.method,
                task=column_title(cell.task, cell.protocol),
                task_version=cell.version,
                protocol=cell.protocol,
                metric=cell.metric,
                value_a=round(found.mean_a, 4),
                value_b=round(found.mean_b, 4),
                difference=round(found.difference, 4),
                ci95=(round(found.ci95[0], 4), round(found.ci95[1], 4)),
                p_value=found.p_value,
                p_holm=1.0,
                mde80=round(found.mde80, 2),
                n_seeds=found.n_seeds,
                n_items=found.n_items,
                n_excluded=found.n_excluded,
                n_prompts_differ=found.n_prompts_differ,
                test=found.method,
                verdict="",
            )
        )
        if left_out := found.n_excluded + found.n_prompts_differ:
            notes.append(f"{cell.teacher} -> {cell.student}, {cell.method}, {cell.task}: {left_out} items left out")
    if not lines:
        raise InputError(
            "compare: the two have nothing in common; fix: "
            + (notes[0] if notes else "other methods, folders or --only")
        )
    adjusted = holm([line.p_value for line in lines])
    done = [replace(line, p_holm=p, verdict=_verdict(line, p)) for line, p in zip(lines, adjusted, strict=True)]
    if any(line.n_seeds == 1 for line in done):
        notes.append("one seed: the comparison is of these models; whether the methods differ needs several seeds")
    return done, notes


def _verdict(line: Line, p: float) -> str:
    if p >= ALPHA:
        return f"not told apart (would see {line.mde80:.1f} points in 80 % of cases)"
    return "A higher" if line.difference > 0 else "B higher"

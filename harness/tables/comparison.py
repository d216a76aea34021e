"""Compares two methods of one run, or the same cells of two runs, task by task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from dskd.errors import InputError
from harness.protocols import column_title
from harness.results.item_scores import ItemScores, Results, stack
from harness.statistics.paired_tests import compare, holm_of

KEYS = ("teacher", "student", "method", "task")
ALPHA = 0.05


@dataclass(frozen=True)
class ComparedCell:
    """A cell over all its seeds."""

    teacher: str
    student: str | None
    method: str
    task: str
    task_version: str
    protocol: str
    metric: str


@dataclass(frozen=True)
class ComparisonRow(ComparedCell):
    """One comparison: values and differences in points, over the shared items. `p_holm` is adjusted over all rows."""

    value_a: float
    value_b: float
    difference: float
    ci95: tuple[float, float]
    p_value: float
    p_holm: float
    min_detectable_effect: float
    n_seeds: int
    n_items: int
    n_excluded: int
    n_prompts_differ: int
    test: str
    verdict: str


Chosen = Mapping[str, Collection[str]]
_NONE: Chosen = {}


def compare_methods(
    results: Results, a: str, b: str, only: Chosen, skip: Chosen = _NONE
) -> tuple[list[ComparisonRow], list[str]]:
    """Compare two methods on every pair and task that has both. Returns the rows, and notes on what was left out.

    `only` has for a key (`KEYS`) the names or shell patterns to which rows are limited, `skip` those of rows that are left out.
    InputError for an unknown method, or nothing to compare.
    """
    cells, notes = item_scores_of_cells(results)
    for name in (a, b):
        if name not in {cell.method for cell in cells}:
            methods = ", ".join(sorted({cell.method for cell in cells}))
            raise InputError(f"compare: no method {name!r} with samples; fix: use one of {methods}")
    pairs = []
    for cell, scores in cells.items():
        # The teacher, whose cell has no student, is compared with every student.
        if cell.method != a:
            continue
        for other, other_scores in cells.items():
            alike = replace(other, method=a, student=cell.student) == cell
            if other.method == b and alike and (other.student == cell.student or None in (other.student, cell.student)):
                both = replace(cell, method=f"{a} / {b}", student=cell.student or other.student)
                pairs.append((both, scores, other_scores))
    return _compared(pairs, (only, skip), notes, {a, b})


def compare_runs(a: Results, b: Results, only: Chosen, skip: Chosen = _NONE) -> tuple[list[ComparisonRow], list[str]]:
    """Compare the cells that both runs have, as `compare_methods` does. Cells of one run only get a note."""
    left, notes = item_scores_of_cells(a)
    right, more = item_scores_of_cells(b)
    notes += more
    for name, these, those in (("A", left, right), ("B", right, left)):
        if number := sum(cell not in those for cell in these):
            notes.append(f"{number} evaluations are in {name} only")
    return _compared([(cell, left[cell], right[cell]) for cell in left if cell in right], (only, skip), notes, set())


def item_scores_of_cells(results: Results) -> tuple[dict[ComparedCell, ItemScores], list[str]]:
    """The item scores of each cell over all its seeds, and notes on cells whose seeds do not fit together."""
    groups: dict[ComparedCell, list] = {}
    for record in results.records:
        if (items := results.items.get(record.cell.key)) is not None:
            cell = record.cell
            what = (str(cell.task), str(cell.task_version), cell.protocol_label, str(record.headline))
            groups.setdefault(ComparedCell(cell.teacher, cell.student, cell.method, *what), []).append((record, items))
    scores, notes = {}, []
    for key in sorted(groups, key=lambda each: [str(value) for value in vars(each).values()]):
        try:
            scores[key] = stack(groups[key], key.metric)
        except InputError as error:
            notes.append(f"left out: {error}")
    return scores, notes


def _compared(
    pairs: list[tuple[ComparedCell, ItemScores, ItemScores]],
    chosen: tuple[Chosen, Chosen],
    notes: list[str],
    methods: set[str],
) -> tuple[list[ComparisonRow], list[str]]:
    lines, compared = [], []
    for cell, a, b in pairs:
        names = {"teacher": {cell.teacher}, "student": {str(cell.student)}, "task": {cell.task}}
        if not is_chosen({**names, "method": {cell.method, *methods}}, *chosen):
            continue
        where = f"{cell.teacher} -> {cell.student}, {cell.method}, {cell.task}"
        try:
            # A teacher has prompts of its own template, so it is compared by id only.
            result = compare(a, b, same_prompts=not (a.fixed or b.fixed))
        except InputError as error:
            notes.append(f"{where}: {error}")
            continue
        compared.append(result)
        lines.append(
            ComparisonRow(
                **vars(replace(cell, task=column_title(cell.task, cell.protocol))),
                value_a=round(result.mean_a, 4),
                value_b=round(result.mean_b, 4),
                difference=round(result.difference, 4),
                ci95=(round(result.ci95[0], 4), round(result.ci95[1], 4)),
                p_value=result.p_value,
                p_holm=1.0,
                min_detectable_effect=round(result.min_detectable_effect, 2),
                n_seeds=result.n_seeds,
                n_items=result.n_items,
                n_excluded=result.n_excluded,
                n_prompts_differ=result.n_prompts_differ,
                test=result.method,
                verdict="",
            )
        )
        if left_out := result.n_excluded + result.n_prompts_differ:
            notes.append(f"{where}: {left_out} items left out")
    if not lines:
        reason = f" ({notes[0]})" if notes else ""
        raise InputError(
            f"compare: nothing in common{reason}; fix: use other methods, other folders or another --only or --skip"
        )
    adjusted = holm_of(compared)
    done = [replace(line, p_holm=p, verdict=_verdict(line, p)) for line, p in zip(lines, adjusted, strict=True)]
    if any(line.n_seeds == 1 for line in done):
        notes.append("one seed: this compares two models; to compare methods, use several seeds")
    return done, notes


def is_chosen(names: Mapping[str, Collection[str]], only: Chosen, skip: Chosen = _NONE) -> bool:
    """Whether a row with these names of each key is asked for."""
    if not all(_fits(wanted, names[key]) for key, wanted in only.items()):
        return False
    return not any(_fits(unwanted, names[key]) for key, unwanted in skip.items())


def _fits(patterns: Collection[str], names: Collection[str]) -> bool:
    """Whether one of some names is one of the patterns, or fits it."""
    return any(name == pattern or fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _verdict(line: ComparisonRow, p: float) -> str:
    if p >= ALPHA:
        return f"not significantly different (minimum detectable effect: {line.min_detectable_effect:.1f} points)"
    return "A higher" if line.difference > 0 else "B higher"

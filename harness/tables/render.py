"""Writes a leaderboard as Markdown, LaTeX or HTML, which show the same tables, or as CSV or JSON with all fields."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields

from harness.config.cells import TEACHER_METHOD
from harness.tables.grid import DASH, Bold, Grid
from harness.tables.grid_formats import html_of, latex_of, markdown_of
from harness.tables.published import published_grid
from harness.tables.reasoning import HEADER as REASONING_HEADER
from harness.tables.reasoning import LEGEND as REASONING_LEGEND
from harness.tables.reasoning import reasoning_cells
from harness.tables.rows import COST_FIELDS, REASONING_FIELDS, CostRow, Leaderboard, ScoreRow, method_order
from harness.tables.tuning_grids import (
    COST_HEADER,
    COSTS_LEGEND,
    CSV_FIELDS,
    GAINS_LEGEND,
    cost_cells,
    csv_cells,
    gains_grid,
    marked,
)
from harness.tables.tuning_grids import LEGEND as TUNING_LEGEND

EFFECT = "min. detectable effect"


def grids(board: Leaderboard, costs: bool) -> list[Grid]:
    """A table for each pair with the teacher first; where they are asked for, what tuning gave, and the costs of its trainings."""
    tables = []
    for teacher, student in board.pairs:
        methods = [(None, TEACHER_METHOD), *((student, method) for method in board.methods(teacher, student))]
        tables.append(_score_grid(board, teacher, methods, f"{teacher} -> {student}"))
        tables += _share_grids(board, teacher, student)
        if board.tuning_tables and (gains := gains_grid(board, teacher, student)) is not None:
            tables.append(gains)
        if costs:
            rows = [row for row in board.costs if (row.teacher, row.student) == (teacher, student)]
            tables.append(_cost_grid(board, f"{teacher} -> {student}: cost of training", rows))
    teachers_only = sorted({row.teacher for row in board.rows} - {teacher for teacher, _ in board.pairs})
    tables += [_score_grid(board, teacher, [(None, TEACHER_METHOD)], teacher) for teacher in teachers_only]
    return tables + [published_grid(board, table) for table in board.published]


def _score_grid(board: Leaderboard, teacher: str, methods: Sequence[tuple[str | None, str]], title: str) -> Grid:
    tasks = board.tasks
    names = {task: next((row.metric for row in board.rows if row.column == task and row.metric), "") for task in tasks}
    lines = []
    for student, method in methods:
        rows = [board.find(teacher, student, method, task) for task in tasks]
        if not any(rows):
            continue
        seeds = DASH if student is None else str(max(row.seeds for row in rows if row))
        lines.append(
            [marked(board, teacher, student, method), seeds, *_beside(board, [_score(row) for row in rows], rows)]
        )
    student_of_pair = next((student for student, _ in methods if student), None)
    effects = [board.min_detectable_effect(teacher, student_of_pair, task) for task in tasks]
    if any(effects):
        shown = [DASH if effect is None else f"{effect:.1f}" for effect in effects]
        lines.append([EFFECT, DASH, *_beside(board, shown, [None] * len(shown))])
    sizes = {task: max((row.n for row in board.rows if row.column == task), default=0) for task in tasks}
    header = ["method", "seeds"]
    for task in tasks:
        header += [f"{task} ({names[task]}, n={sizes[task]})", *(REASONING_HEADER if board.reasons(task) else ())]
    return Grid(title, header, lines)


def _beside(board: Leaderboard, cells: Sequence[str], rows: Sequence[ScoreRow | None]) -> list[str]:
    """A cell for each column, and what reasoning cost beside it where a model of the column reasons."""
    texts = []
    for task, cell, row in zip(board.tasks, cells, rows, strict=True):
        texts += [cell, *(reasoning_cells(board, row) if board.reasons(task) else ())]
    return texts


def _score(row: ScoreRow | None) -> str:
    if row is None:
        return DASH
    if row.value is None:
        return "failed" if row.failed else DASH
    spread = f" ± {row.sd:.1f}" if row.sd is not None else ""
    interval = f" [{row.ci95[0]:.1f}, {row.ci95[1]:.1f}]" if row.ci95 else ""
    mark = " †" if row.tied else ""
    text = f"{row.value:.1f}{spread}{interval}{mark}"
    return Bold(text) if row.best else text


def _share_grids(board: Leaderboard, teacher: str, student: str) -> list[Grid]:
    """The share of the gap that each method closes, and invalid and truncated completions; without a table that says nothing."""

    def gap(row: ScoreRow | None) -> str:
        return DASH if row is None or row.gap_closed is None else f"{row.gap_closed:.0f} %"

    def shares(row: ScoreRow | None) -> str:
        if row is None or row.invalid_share is None or row.truncated_share is None:
            return DASH
        return f"{row.invalid_share:.1f} / {row.truncated_share:.1f}"

    gaps, flaws, any_flaw = [], [], False
    for place, method in [(None, TEACHER_METHOD), *((student, name) for name in board.methods(teacher, student))]:
        rows = [board.find(teacher, place, method, task) for task in board.tasks]
        if place and method != "sft" and any(row is not None and row.gap_closed is not None for row in rows):
            gaps.append([method, *map(gap, rows)])
        any_flaw |= any(row is not None and (row.invalid or row.truncated) for row in rows)
        if any(rows):
            flaws.append([method, *map(shares, rows)])
    titles = {"share of the gap from sft to the teacher that is closed": gaps}
    titles["invalid / truncated completions (%)"] = flaws if any_flaw else []
    header = ["method", *board.tasks]
    return [Grid(f"{teacher} -> {student}: {title}", header, lines) for title, lines in titles.items() if lines]


def _cost_grid(board: Leaderboard, title: str, rows: Sequence[CostRow]) -> Grid:
    def number(value: float | None, digits: int = 1, scale: float = 1.0) -> str:
        return DASH if value is None else f"{value / scale:,.{digits}f}"

    on_gpu = any(row.peak_device_memory is not None for row in rows)
    header = ["method", "seeds", "training (s)", "teacher (s)", "teacher cache (s)", "tokens", "tokens/s"]
    header += ["peak memory (MiB)", *(["peak GPU memory (MiB)"] if on_gpu else [])]
    covered = any(row.distilled_share is not None for row in rows)
    header += ["distilled (% of labels)"] if covered else []
    found = {row.method: board.tuning_of(row.teacher, row.student, row.method) for row in rows}
    tuned = any(found.values())
    header += COST_HEADER if tuned else []
    lines = [
        [
            marked(board, row.teacher, row.student, row.method),
            str(row.seeds),
            number(row.train_seconds),
            number(row.teacher_seconds),
            number(row.signal_seconds),
            number(row.tokens, 0),
            number(row.tokens_per_second, 0),
            number(row.peak_memory, 0, 2**20),
            *([number(row.peak_device_memory, 0, 2**20)] if on_gpu else []),
            *([number(row.distilled_share, 1, 0.01)] if covered else []),
            *(cost_cells(found[row.method]) if tuned else []),
        ]
        for row in sorted(rows, key=lambda row: method_order(row.method))
    ]
    return Grid(title, header, lines)


_SCORES = "Score 0–100 [95 % interval]; several seeds: mean ± standard deviation of the seeds."
_COSTS = (
    "Costs: means over the seeds. Training time includes teacher time. The teacher cache is computed once for all trainings "
    "that read it and is not part of their times."
)
_DISTILLED = "Distilled: the share of the labels that a teacher's terms teach."
_RANKING = (
    "Bold: best mean of the column. †: not significantly different from the best (paired test on the same items, Holm-corrected, "
    "p ≥ 0.05). Last row: minimum detectable effect at 80 % power. See docs/statistics.md."
)


def legend(board: Leaderboard, costs: bool) -> str:
    """What the marks and columns of the tables mean."""
    parts = [_SCORES]
    if any(row.best for row in board.rows):
        parts.append(_RANKING)
        if any(row.best and row.seeds == 1 for row in board.rows):
            parts.append("One seed: the tests compare these models, not the methods.")
    if board.tuning:
        parts += [TUNING_LEGEND, *([GAINS_LEGEND] if board.tuning_tables else [])]
    parts += [REASONING_LEGEND] if board.reasoning else []
    if costs:
        parts += [_COSTS, *([_DISTILLED] if any(row.distilled_share is not None for row in board.costs) else [])]
        parts += [COSTS_LEGEND] if board.tuning else []
    return " ".join(parts)


def markdown(board: Leaderboard, costs: bool = False) -> str:
    """Markdown tables with padded columns, so that they also read well as plain text."""
    return markdown_of(grids(board, costs), legend(board, costs), board.notes)


def latex(board: Leaderboard, costs: bool = False) -> str:
    """One booktabs tabular per table."""
    return latex_of(grids(board, costs), legend(board, costs), board.notes)


def html_page(board: Leaderboard, costs: bool = False) -> str:
    """A complete page without scripts or external files."""
    return html_of(grids(board, costs), legend(board, costs), board.notes)


def csv_text(board: Leaderboard, costs: bool = False) -> str:
    """One line per score; costs, what reasoning cost, tuning, and published results are further columns."""
    stream = io.StringIO()
    names = [field.name for field in fields(ScoreRow) if field.name != "ci95"]
    cost_names = COST_FIELDS if costs else ()
    writer = csv.writer(stream, lineterminator="\n")
    reasoning_names = REASONING_FIELDS if board.reasoning else ()
    tuning_names = CSV_FIELDS if board.tuning else ()
    last = ["published"] if board.published else []
    writer.writerow([*names, "ci95_low", "ci95_high", *cost_names, *reasoning_names, *tuning_names, *last])
    costs_by_method = {(row.teacher, row.student, row.method): asdict(row) for row in board.costs}
    for row in board.rows:
        values = asdict(row)
        cost = costs_by_method.get((row.teacher, str(row.student), row.method), {})
        line = [
            *(values[name] for name in names),
            *(row.ci95 or (None, None)),
            *(cost.get(name) for name in cost_names),
            *(getattr(board.reasoning_of(row), name, None) for name in reasoning_names),
        ]
        line += csv_cells(board, row.teacher, row.student, row.method, row.column) if board.tuning else []
        line += [_published(board, row)] if board.published else []
        writer.writerow(["" if value is None else value for value in line])
    return stream.getvalue()


def _published(board: Leaderboard, row: ScoreRow) -> str:
    """The results of each source for the same pair, method and task. A teacher has those of all its pairs."""
    results = [
        f"{value} ({table.metric}; {table.source}; {table.protocol})"
        for table in board.published
        if table.teacher == row.teacher and row.student in (None, table.student)
        if (value := table.shown(row.method, row.task)) is not None
    ]
    return " | ".join(results)


def json_text(board: Leaderboard, costs: bool = False) -> str:
    """The leaderboard as JSON."""
    return json.dumps(board.as_json(costs), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Leaderboard, bool], str]] = {
    "md": markdown, "csv": csv_text, "tex": latex, "html": html_page, "json": json_text,
}  # fmt: skip

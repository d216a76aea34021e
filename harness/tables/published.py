"""Published results of others, in separate tables with source and protocol. They are never ranked with ours."""

from __future__ import annotations

from harness.config.cells import TEACHER_METHOD
from harness.published import PublishedTable
from harness.tables.grid import DASH, Grid
from harness.tables.rows import Leaderboard, ScoreRow


def published_grid(board: Leaderboard, table: PublishedTable) -> Grid:
    """A grid of a published table. If we have the task of a column, our results are in the next column."""
    ours = {column for column in table.columns if any(row.task == column for row in board.rows)}
    header = ["method"]
    for column in table.columns:
        header += [f"{column}, published", f"{column}, ours"] if column in ours else [f"{column}, published"]
    lines = []
    for method in table.values:
        cells = [method]
        for column in table.columns:
            cells.append(table.shown(method, column) or DASH)
            if column in ours:
                rows = _our_rows(board, table, method, column)
                cells.append(", ".join(f"{row.value:.2f} ({row.metric}, {row.protocol})" for row in rows) or DASH)
        lines.append(cells)
    title = f"{table.teacher} -> {table.student}: published by {table.source}"
    note = f"Published: {table.metric}, read in {table.read_in}. {table.protocol}"
    return Grid(title, header, lines, note)


def _our_rows(board: Leaderboard, table: PublishedTable, method: str, column: str) -> list[ScoreRow]:
    """Our scores of the same pair, method and task, one for each decoding protocol."""
    student = None if method == TEACHER_METHOD else table.student
    key = (table.teacher, student, method, column)
    return [
        row for row in board.rows if (row.teacher, row.student, row.method, row.task) == key and row.value is not None
    ]

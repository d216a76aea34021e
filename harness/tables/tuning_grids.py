"""Tuning in a leaderboard: the mark of tuned rows, what tuning gave, and what its trials cost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from harness.protocols import column_title
from harness.tables.grid import DASH, Grid
from harness.tables.rows import Leaderboard
from harness.tables.setting_text import settings_text
from harness.tables.tuning_rows import GainRow, TuningRow

MARK = "‡"
LEGEND = (
    f"{MARK}: the setting was chosen by trials on validation items, and trained anew with other seeds; bold and † are among these "
    "rows alone, and default settings are not ranked. `harness leaderboard --tuning` shows what was chosen and what it gave."
)
GAINS_LEGEND = (
    "What tuning gave: score with the default setting → tuned: difference [95 % interval] on the shared test items. Validation: by the "
    "rule, in per cent of the teacher's; that of the chosen setting is too high, because it is the best of all trials. Tokens and "
    "seconds: of training all trials, once for all seeds."
)
COSTS_LEGEND = "Trials: their training, of the method, once for all its seeds; not in the other columns."
COST_HEADER = ("trials", "trials: tokens", "trials: training (s)")
CSV_FIELDS = (
    "tuned",
    "settings",
    "validation_score",
    "default_validation_score",
    "trials",
    "trial_tokens",
    "trial_seconds",
    "tuning_difference",
    "tuning_ci95_low",
    "tuning_ci95_high",
)


def marked(board: Leaderboard, teacher: str, student: str | None, method: str) -> str:
    """The name of a method, with the mark of one that was tuned."""
    return f"{method} {MARK}" if board.is_tuned(teacher, student, method) else method


def gains_grid(board: Leaderboard, teacher: str, student: str) -> Grid | None:
    """What tuning gave the methods of a pair, what was chosen, and the budget; None where none was tuned."""
    rows = [each.row for each in board.tuning if each.row.pair == (teacher, student)]
    if not rows:
        return None
    columns = [column for column in board.tasks if any(_gain(board, row, column) for row in rows)]
    header = ["method", *columns, "validation", "chosen setting", "budget", *COST_HEADER]
    lines = [
        [
            row.default,
            *(_difference(_gain(board, row, column)) for column in columns),
            f"{_score(row.default_score)}{_early(row)} → {_score(row.score)}",
            settings_text(row.settings) + (f" (trial {row.chosen})" if row.settings else ""),
            row.allowed,
            *cost_cells(row),
        ]
        for row in rows
    ]
    if len(rows) > 1:
        blank = [DASH] * (len(columns) + 3)
        lines.append(["all", *blank, *_cells(rows)])
    return Grid(f"{teacher} -> {student}: what tuning gave", header, lines)


def cost_cells(row: TuningRow | None) -> list[str]:
    """What the trials of a method cost, in the order of `COST_HEADER`."""
    return _cells([] if row is None else [row])


def csv_cells(board: Leaderboard, teacher: str, student: str | None, method: str, column: str) -> list[Any]:
    """What a line of csv says of tuning, in the order of `CSV_FIELDS`."""
    row = board.tuning_of(teacher, student, method)
    if row is None:
        return ["" if student is None else False, *[None] * (len(CSV_FIELDS) - 1)]
    gain = _gain(board, row, column)
    settings = json.dumps(row.settings, ensure_ascii=False)
    costs = [row.trials, row.tokens, row.seconds]
    difference = [None, None, None] if gain is None else [gain.difference, *(gain.ci95 or (None, None))]
    return [True, settings, row.score, row.default_score, *costs, *difference]


def _cells(rows: Sequence[TuningRow]) -> list[str]:
    """The numbers of trials, tokens and seconds of some methods together."""
    if not rows:
        return [DASH] * len(COST_HEADER)
    at_least = "≥ " if any(row.uncounted for row in rows) else ""
    tokens = [row.tokens for row in rows if row.tokens is not None]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    return [
        str(sum(row.trials for row in rows)),
        f"{at_least}{sum(tokens):,}" if tokens else DASH,
        f"{at_least}{sum(seconds):,.1f}" if seconds else DASH,
    ]


def _gain(board: Leaderboard, row: TuningRow, column: str) -> GainRow | None:
    """What tuning gave a method in a column, which is given by its title."""
    key = (row.teacher, row.student, row.method, column)
    found = ((gain, column_title(gain.task, gain.protocol)) for gain in board.gains)
    return next((gain for gain, title in found if (gain.teacher, gain.student, gain.method, title) == key), None)


def _difference(gain: GainRow | None) -> str:
    if gain is None or gain.difference is None or gain.ci95 is None:
        return DASH
    ends = f"[{gain.ci95[0]:+.1f}, {gain.ci95[1]:+.1f}]"
    return f"{_score(gain.default_value)} → {_score(gain.tuned_value)}: {gain.difference:+.1f} {ends}"


def _early(row: TuningRow) -> str:
    """What is said of a default that was dropped before its last step."""
    return (
        f" (at {row.default_share:.0%} of the steps)" if row.default_share < 1 and row.default_score is not None else ""
    )


def _score(value: float | None) -> str:
    return DASH if value is None else f"{value:.1f}"

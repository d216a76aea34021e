"""What a reader must know about a leaderboard, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.config.matrix import TEACHER_METHOD
from harness.runs.identity import differences
from harness.runs.records import Record

if TYPE_CHECKING:
    from harness.tables.leaderboard import Leaderboard, Row


def table_notes(board: Leaderboard, records: Sequence[Record]) -> list[str]:
    """What is wrong with columns as a whole, and with the answers of each pair."""
    notes = []
    for task in board.tasks:
        rows = [row for row in board.rows if row.column == task]
        sizes = sorted({row.n for row in rows if row.n})
        if len(sizes) > 1:
            notes.append(
                f"{task}: not all on the same number of samples ({', '.join(map(str, sizes))}): do not compare"
            )
        engines = sorted({str(r.environment.engine) for r in records if r.cell.column == task and r.status == "done"})
        if len(engines) > 1:
            notes.append(f"{task}: answers of different engines ({', '.join(engines)})")
    pairs: list[tuple[str, str | None]] = [*board.pairs]
    for teacher, student in pairs or sorted({(row.teacher, None) for row in board.rows}):
        for task in board.tasks:
            methods = board.methods(teacher, student) if student else []
            found = [board.find(teacher, None, TEACHER_METHOD, task)]
            found += [board.find(teacher, student, method, task) for method in methods]
            flaws = _flaws([row for row in found if row is not None])
            if flaws:
                notes.append(f"{teacher} -> {student}, {task}: {flaws}" if student else f"{teacher}, {task}: {flaws}")
    return notes


# A seed is named here in an identity: the training's own. All else must be equal for seeds to be averaged.
_SEED = "model.seed:"


def mixed_settings(groups: Sequence[Sequence[Record]]) -> list[str]:
    """Seeds of one cell that were made with different settings, as when a recipe was changed and only some were run again."""
    notes = []
    for group in groups:
        for other in group[1:]:
            changed = differences(group[0].identity.parts, other.identity.parts)
            if more := [change for change in changed if not change.startswith(_SEED)]:
                cell = other.cell
                notes.append(
                    f"{cell.teacher} -> {cell.student}, {cell.method}, {cell.column}: seeds {group[0].cell.seed} and {cell.seed} "
                    f"differ in more than the seed ({more[0]}): do not average"
                )
    return notes


def _flaws(rows: Sequence[Row]) -> str:
    """What is wrong with the answers of one pair on one task, each flaw with the methods and their shares."""
    kinds: dict[str, Callable[[Row], int]] = {
        "invalid": lambda row: row.invalid,
        "cut off at the token limit": lambda row: row.truncated,
        "harness errors": lambda row: row.harness_error,
    }
    told = []
    for name, count in kinds.items():
        shares = [f"{r.method} {100 * count(r) / (r.n * r.seeds):.1f} %" for r in rows if count(r) and r.n * r.seeds]
        if shares:
            told.append(f"{name}: {', '.join(shares)}")
    failed = [f"{row.method} {row.failed}" for row in rows if row.failed]
    if failed:
        told.append(f"failed: {', '.join(failed)}")
    if unscored := [f"{row.method} {row.unscored}" for row in rows if row.unscored]:
        told.append(f"seeds without a score: {', '.join(unscored)}")
    return "; ".join(told)

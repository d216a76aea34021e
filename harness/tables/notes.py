"""The notes under a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence

from harness.config.cells import TEACHER_METHOD
from harness.runs.identity import differences
from harness.runs.records import Record
from harness.tables.rows import Leaderboard, ScoreRow


def table_notes(board: Leaderboard, records: Sequence[Record]) -> list[str]:
    """Notes on columns that mix sizes or engines, pairs that mix processors, and invalid, truncated and failed completions."""
    notes = []
    for task in board.tasks:
        rows = [row for row in board.rows if row.column == task]
        sizes = sorted({row.n for row in rows if row.n})
        if len(sizes) > 1:
            numbers = ", ".join(map(str, sizes))
            notes.append(f"{task}: not all on the same number of samples ({numbers}): do not compare")
        engines = sorted({str(r.environment.engine) for r in records if r.cell.column == task and r.status == "done"})
        if len(engines) > 1:
            notes.append(f"{task}: completions of different engines ({', '.join(engines)})")
    pairs: list[tuple[str, str | None]] = [*board.pairs]
    for teacher, student in pairs or sorted({(row.teacher, None) for row in board.rows}):
        for task in board.tasks:
            methods = board.methods(teacher, student) if student else []
            rows_of_pair = [board.find(teacher, None, TEACHER_METHOD, task)]
            rows_of_pair += [board.find(teacher, student, method, task) for method in methods]
            if flaws := _flaws([row for row in rows_of_pair if row is not None]):
                notes.append(f"{teacher} -> {student}, {task}: {flaws}" if student else f"{teacher}, {task}: {flaws}")
    for teacher, student in board.pairs:
        of_pair = [r for r in records if r.cell.teacher == teacher and r.cell.student in (student, None)]
        if processors := _processors(of_pair):
            notes.append(f"{teacher} -> {student}: {processors}")
    return notes


def untuned_notes(board: Leaderboard) -> list[str]:
    """A note for each pair in which some methods are tuned and others only have their default setting."""
    notes = []
    for teacher, student in board.pairs:
        tuned = [each.row for each in board.tuning if each.row.pair == (teacher, student)]
        without = [
            method
            for method in board.methods(teacher, student)
            if not board.is_tuned(teacher, student, method) and method not in {row.default for row in tuned}
        ]
        if tuned and without:
            notes.append(f"{teacher} -> {student}: not tuned, and so not ranked among the tuned: {', '.join(without)}")
    return notes


# The training seed within an identity. Everything else must be equal for seeds to be averaged.
_SEED = "model.seed:"


def mixed_settings(groups: Sequence[Sequence[Record]]) -> list[str]:
    """Notes on seeds of one cell with different settings, as when a recipe changed and only some seeds were run again."""
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


def _processors(records: Sequence[Record]) -> str:
    """The processors of the records with the methods of each, if there are several: the same seed gives other weights on another one."""
    methods: dict[str, set[str]] = {}
    for record in records:
        environment = record.environment
        # The GPU's name where there is one; `cpu` is unknown in older records, and what is unknown is not told from the rest.
        if processor := environment.cpu if environment.device == "cpu" else environment.device:
            methods.setdefault(processor, set()).add(record.cell.method)
    if len(methods) < 2:
        return ""
    listed = "; ".join(f"{processor}: {', '.join(sorted(names))}" for processor, names in sorted(methods.items()))
    return f"made on different processors, where the same seed gives other weights ({listed})"


def _flaws(rows: Sequence[ScoreRow]) -> str:
    """The flaws of completions of one pair on one task, each with the methods and their shares."""
    flaws: dict[str, list[str]] = {}
    for row in rows:
        completions = row.n * row.seeds
        counts = {
            "invalid": row.invalid,
            "cut off at the token limit": row.truncated,
            "harness errors": row.harness_error,
        }
        for name, count in counts.items():
            shares = [f"{row.method} {100 * count / completions:.1f} %"] if count and completions else []
            flaws.setdefault(name, []).extend(shares)
        for name, count in {"failed": row.failed, "seeds without a score": row.unscored}.items():
            flaws.setdefault(name, []).extend([f"{row.method} {count}"] if count else [])
    return "; ".join(f"{name}: {', '.join(methods)}" for name, methods in flaws.items() if methods)

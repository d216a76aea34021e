"""The leaderboard: for every teacher and student, the methods by the tasks' headline metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dskd.errors import InputError
from harness.identity import differences
from harness.matrix import TEACHER_METHOD
from harness.protocols import GREEDY, column_title
from harness.records import Record
from harness.tables.aggregate import over_seeds
from harness.tables.overlap_notes import overlap_notes

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One score: a method for one pair on one task, over its seeds. The teacher's own has no student."""

    teacher: str
    student: str | None
    method: str
    task: str
    task_version: str
    metric: str
    value: float | None
    sd: float | None
    ci95: tuple[float, float] | None
    seeds: int
    n: int
    invalid: int
    truncated: int
    harness_error: int
    failed: int
    unscored: int  # seeds that were evaluated and have no score
    protocol: str = GREEDY.name  # its label: the name, and what differs from the preset

    @property
    def column(self) -> str:
        """What it stands under: scores of unequal protocols never share a column."""
        return column_title(self.task, self.protocol)


@dataclass(frozen=True)
class CostRow:
    """What a method cost for one pair, as the mean over its seeds; memory in bytes.

    `signal_seconds` and `signal_examples` are what the teacher's signal took once for all that read it, no part of these trainings.
    """

    teacher: str
    student: str
    method: str
    seeds: int
    train_seconds: float | None
    teacher_seconds: float | None
    teacher_examples: float | None
    signal_seconds: float | None
    signal_examples: float | None
    tokens: float | None
    tokens_per_second: float | None
    peak_memory: float | None
    peak_device_memory: float | None


COST_FIELDS = tuple(field.name for field in fields(CostRow))[4:]


@dataclass
class Leaderboard:
    """All scores and costs, and what a reader must know about them."""

    rows: list[Row] = field(default_factory=list)
    costs: list[CostRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """The columns."""
        return sorted({row.column for row in self.rows})

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The groups."""
        scored = {(row.teacher, row.student) for row in self.rows if row.student is not None}
        return sorted(scored | {(row.teacher, row.student) for row in self.costs})

    def methods(self, teacher: str, student: str | None) -> list[str]:
        """The rows of a group: plain fine-tuning first, then the others by name."""
        found = {row.method for row in self.rows if (row.teacher, row.student) == (teacher, student)}
        return sorted(found, key=lambda name: (name != "sft", name))

    def find(self, teacher: str, student: str | None, method: str, column: str) -> Row | None:
        """One score."""
        key = (teacher, student, method, column)
        return next((row for row in self.rows if (row.teacher, row.student, row.method, row.column) == key), None)

    def as_json(self, costs: bool) -> dict[str, Any]:
        """The contract of `harness leaderboard --format json`."""
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "rows": [asdict(row) for row in self.rows]}
        if costs:
            document["costs"] = [asdict(row) for row in self.costs]
        return document | {"notes": self.notes}


def make_leaderboard(records: Sequence[Record]) -> Leaderboard:
    """The leaderboard of these records, whatever their order.

    The same record found twice counts once. InputError where two records of one cell were made with different settings, as when
    folders of several runs are read together: which of them is meant is not for a table to say.
    """
    records = _distinct(records)
    evaluations = [record for record in records if record.cell.task is not None]
    newest, dropped = _newest_versions(evaluations)
    board = Leaderboard()
    for group in _grouped(newest, lambda r: (r.cell.teacher, r.cell.student or "", r.cell.method, r.cell.column or "")):
        board.rows.append(_row(group))
    trainings = [record for record in records if record.cell.task is None and record.status == "done"]
    for group in _grouped(trainings, lambda r: (r.cell.teacher, r.cell.student or "", r.cell.method)):
        board.costs.append(_costs(group))
    board.notes = [*dropped, *_notes(board, newest), *_mixed_settings(newest), *overlap_notes(newest)]
    return board


def _distinct(records: Sequence[Record]) -> list[Record]:
    found: dict[str, Record] = {}
    for record in records:
        key = record.cell.model_dump_json()
        if key in found and found[key].identity.hash != record.identity.hash:
            cell = record.cell
            where = "/".join(
                str(part) for part in (cell.teacher, cell.student, cell.method, cell.seed, cell.column) if part
            )
            changed = differences(found[key].identity.parts, record.identity.parts)
            raise InputError(
                f"two records of {where} with different settings ({changed[0]}); fix: give the folder of one run"
            )
        found.setdefault(key, record)
    return list(found.values())


def _grouped(records: Iterable[Record], key: Callable[[Record], tuple[str, ...]]) -> list[list[Record]]:
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return [sorted(groups[name], key=lambda r: r.cell.seed or 0) for name in sorted(groups)]


def _newest_versions(records: Sequence[Record]) -> tuple[list[Record], list[str]]:
    """Scores of different versions of a task cannot stand in one column: the newest version of each stays."""
    newest: dict[str, str] = {}
    for record in records:
        task, version = str(record.cell.column), str(record.cell.task_version)
        newest[task] = max(newest.get(task, version), version, key=_version_order)
    kept = [record for record in records if record.cell.task_version == newest[str(record.cell.column)]]
    versions = {(str(record.cell.column), str(record.cell.task_version)) for record in records}
    dropped = sorted(f"{task}@v{version}" for task, version in versions if version != newest[task])
    notes = [f"left out, because a newer version of the task is there: {name}" for name in dropped]
    return kept, notes


def _version_order(version: str) -> tuple[tuple[int, int | str], ...]:
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in version.split("."))


def _row(group: Sequence[Record]) -> Row:
    cell = group[0].cell
    done = [record for record in group if record.status == "done"]
    metric = str(done[0].headline) if done else ""
    figure = over_seeds([record.metrics[metric] for record in done if metric in record.metrics])
    counts = [record.n for record in done if record.n is not None]
    return Row(
        teacher=cell.teacher,
        student=cell.student,
        method=cell.method,
        task=str(cell.task),
        task_version=str(cell.task_version),
        metric=metric,
        value=_rounded(figure.value),
        sd=_rounded(figure.sd),
        ci95=(round(figure.ci95[0], 4), round(figure.ci95[1], 4)) if figure.ci95 else None,
        seeds=figure.seeds,
        n=max((count.total for count in counts), default=0),
        invalid=sum(count.invalid for count in counts),
        truncated=sum(count.truncated for count in counts),
        harness_error=sum(count.harness_error for count in counts),
        failed=len(group) - len(done),
        unscored=len(done) - figure.seeds,
        protocol=cell.protocol.label if cell.protocol else GREEDY.name,
    )


def _costs(group: Sequence[Record]) -> CostRow:
    def mean(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(sum(known) / len(known), 3) if known else None

    return CostRow(
        teacher=group[0].cell.teacher,
        student=str(group[0].cell.student),
        method=group[0].cell.method,
        seeds=len(group),
        **{name: mean(getattr(record.cost, name) for record in group) for name in COST_FIELDS},
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _notes(board: Leaderboard, records: Sequence[Record]) -> list[str]:
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


def _mixed_settings(records: Sequence[Record]) -> list[str]:
    """Seeds of one cell that were made with different settings, as when a recipe was changed and only some were run again."""
    notes = []
    for group in _grouped(
        records, lambda r: (r.cell.teacher, r.cell.student or "", r.cell.method, r.cell.column or "")
    ):
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

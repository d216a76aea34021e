"""The leaderboard: for every teacher and student, the methods by the tasks' headline metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from dskd.errors import InputError
from harness.config.matrix import TEACHER_METHOD
from harness.protocols import GREEDY, column_title
from harness.published import PublishedTable
from harness.results.item_scores import Items, ItemScores, stack
from harness.results.load import key_of, protocol_of
from harness.runs.identity import differences
from harness.runs.records import Record
from harness.statistics.over_seeds import over_seeds
from harness.statistics.ranking import rank
from harness.tables.contamination_notes import overlap_notes
from harness.tables.notes import mixed_settings, table_notes

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
    higher_is_better: bool = True
    invalid_share: float | None = None  # per cent of all samples, as the next
    truncated_share: float | None = None
    best: bool = False
    tied: bool | None = None  # with the best: not told from it on the same items; None: the best, or not compared
    p_best: float | None = None  # of the difference from the best, adjusted over the methods
    difference_best: float | None = None
    gap_closed: float | None = None  # per cent of the way from sft to the teacher; None with a reason
    gap_reason: str | None = None

    @property
    def column(self) -> str:
        """The task, and the decoding protocol where it is not greedy."""
        return column_title(self.task, self.protocol)


@dataclass(frozen=True)
class ColumnRow:
    """What a column of a pair can tell: `mde80` is the median over its comparisons with the best, None where there are none."""

    teacher: str
    student: str
    task: str
    protocol: str
    mde80: float | None


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
    columns: list[ColumnRow] = field(default_factory=list)
    published: list[PublishedTable] = field(default_factory=list)  # other people's, where they are asked for

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

    def find(self, teacher: str, student: str | None, method: str, task: str) -> Row | None:
        """One score."""
        key = (teacher, student, method, task)
        return next((row for row in self.rows if (row.teacher, row.student, row.method, row.column) == key), None)

    def mde80(self, teacher: str, student: str | None, task: str) -> float | None:
        """The smallest difference that a column can be expected to find."""
        key = (teacher, student, task)
        found = (row for row in self.columns if (row.teacher, row.student, column_title(row.task, row.protocol)) == key)
        return next((row.mde80 for row in found), None)

    def as_json(self, costs: bool) -> dict[str, Any]:
        """The contract of `harness leaderboard --format json`."""
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "rows": [asdict(row) for row in self.rows]}
        document["columns"] = [asdict(row) for row in self.columns]
        if costs:
            document["costs"] = [asdict(row) for row in self.costs]
        if self.published:
            document["published"] = [table.model_dump() for table in self.published]
        return document | {"notes": self.notes}


def make_leaderboard(records: Sequence[Record], items: Mapping[str, Items] | None = None) -> Leaderboard:
    """The leaderboard of these records, whatever their order.

    `items`, by `harness.results.load.key_of`, are what comparisons are made on; without them there are means and their intervals alone.

    The same record found twice counts once. InputError where two records of one cell were made with different settings, as when
    folders of several runs are read together: which of them is meant is not for a table to say.
    """
    records = _distinct(records)
    evaluations = [record for record in records if record.cell.task is not None]
    newest, notes = _newest_versions(evaluations)
    scores: dict[_Key, ItemScores] = {}
    board = Leaderboard()
    for group in _grouped(newest, _cell_key):
        metric = _headline(group)
        found, problem = _item_scores(group, metric, items or {})
        if found is not None:
            scores[_cell_key(group[0])] = found
        if problem:
            notes.append(problem)
        board.rows.append(_row(group, metric, found))
    trainings = [record for record in records if record.cell.task is None and record.status == "done"]
    for group in _grouped(trainings, lambda r: (r.cell.teacher, r.cell.student or "", r.cell.method)):
        board.costs.append(_costs(group))
    notes += _rank(board, scores)
    board.notes = [
        *notes,
        *table_notes(board, newest),
        *mixed_settings(_grouped(newest, _cell_key)),
        *overlap_notes(newest),
    ]
    return board


_Key = tuple[str, str, str, str, str]


def _cell_key(record: Record) -> _Key:
    """All of a cell but its seed; evaluations alone."""
    cell = record.cell
    return cell.teacher, cell.student or "", cell.method, cell.task or "", protocol_of(record)


def _headline(group: Sequence[Record]) -> str:
    return next((str(record.headline) for record in group if record.status == "done"), "")


def _item_scores(
    group: Sequence[Record], metric: str, items: Mapping[str, Items]
) -> tuple[ItemScores | None, str | None]:
    """The items of all seeds that have a score, or in words why there are none where there should be."""
    scored = [r for r in group if r.status == "done" and metric in r.metrics and r.metrics[metric].value is not None]
    known = [(record, items[key_of(record)]) for record in scored if key_of(record) in items]
    if not known or len(known) < len(scored):
        return None, None
    try:
        return stack(known, metric), None
    except InputError as error:
        return None, f"not compared: {error}"


def _rank(board: Leaderboard, scores: Mapping[_Key, ItemScores]) -> list[str]:
    """Set how the methods of each pair's columns stand; in words what could not be compared."""
    notes = []
    columns = sorted({(r.teacher, r.student, r.task, r.protocol) for r in board.rows if r.student is not None})
    for teacher, student, task, protocol in columns:
        places = [
            place
            for place, row in enumerate(board.rows)
            if (row.teacher, row.student, row.task, row.protocol) == (teacher, student, task, protocol)
        ]
        rows = {board.rows[place].method: board.rows[place] for place in places}
        values = {method: row.value for method, row in rows.items() if row.value is not None}
        own = {
            method: scores[key]
            for method in values
            if (key := (teacher, str(student), method, task, protocol)) in scores
        }
        higher = all(row.higher_is_better for row in rows.values())
        anchor = scores.get((teacher, "", TEACHER_METHOD, task, protocol))
        ranking = rank(values, own, anchor, higher_is_better=higher)
        for place in places:
            row = board.rows[place]
            if row.method in ranking.standings:
                board.rows[place] = replace(row, **asdict(ranking.standings[row.method]))
        board.columns.append(ColumnRow(teacher, str(student), task, protocol, ranking.mde80))
        notes += [f"{teacher} -> {student}, {column_title(task, protocol)}: {note}" for note in ranking.notes]
    return notes


def _distinct(records: Sequence[Record]) -> list[Record]:
    found: dict[str, Record] = {}
    for record in records:
        key = key_of(record)
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


def _row(group: Sequence[Record], metric: str, scores: ItemScores | None) -> Row:
    cell = group[0].cell
    done = [record for record in group if record.status == "done"]
    measured = [record.metrics[metric] for record in done if metric in record.metrics]
    figure = over_seeds(measured, scores)
    counts = [record.n for record in done if record.n is not None]
    total = sum(count.total for count in counts)
    invalid, truncated = sum(count.invalid for count in counts), sum(count.truncated for count in counts)
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
        invalid=invalid,
        truncated=truncated,
        harness_error=sum(count.harness_error for count in counts),
        failed=len(group) - len(done),
        unscored=len(done) - figure.seeds,
        protocol=protocol_of(group[0]),
        higher_is_better=all(found.higher_is_better for found in measured),
        invalid_share=round(100 * invalid / total, 2) if total else None,
        truncated_share=round(100 * truncated / total, 2) if total else None,
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

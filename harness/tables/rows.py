"""What a leaderboard consists of: rows of scores, columns, costs and notes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from harness.config.tuning import base_name
from harness.protocols import GREEDY, column_title
from harness.published import PublishedTable
from harness.tables.tuning_rows import GainRow, TunedMethod, TuningRow, as_json

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ScoreRow:
    """The score of a method for one pair on one task, over its seeds. The teacher's own score has no student."""

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
    invalid_share: float | None = None  # per cent of all samples
    truncated_share: float | None = None  # per cent of all samples
    best: bool = False
    tied: bool | None = None  # not significantly different from the best; None: is the best, or was not compared
    p_best: float | None = None  # of the difference from the best, adjusted over the methods
    difference_best: float | None = None
    gap_closed: float | None = None  # (method - sft) / (teacher - sft) in per cent
    gap_reason: str | None = None  # why there is no `gap_closed`

    @property
    def column(self) -> str:
        """The task, and the decoding protocol if it is not greedy."""
        return column_title(self.task, self.protocol)


@dataclass(frozen=True)
class ColumnRow:
    """A column of one pair.

    `min_detectable_effect` is the median over its comparisons with the best, None without comparisons.
    """

    teacher: str
    student: str
    task: str
    protocol: str
    min_detectable_effect: float | None


@dataclass(frozen=True)
class CostRow:
    """The cost of a method for one pair, as the mean over its seeds; memory in bytes.

    `signal_seconds` and `signal_examples` are the cost of the teacher cache. It is computed once for all trainings that read it, and
    is not part of `train_seconds`. `distilled_share` is of the student's labelled tokens, 0 to 1; None without a teacher.
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
    distilled_share: float | None = None


@dataclass(frozen=True)
class ReasoningRow:
    """What a method's models generated for their scores in one column, over its seeds (docs/reasoning.md).

    Tokens are means over all samples, reasoning and answer together; `tokens_per_solved` is all tokens for each sample that is right.
    `never_ended_share` is in per cent of all samples, None for models that do not reason.
    """

    teacher: str
    student: str | None
    method: str
    task: str
    protocol: str
    tokens: float | None
    tokens_per_solved: float | None
    reasoning_tokens: float | None
    never_ended: int
    never_ended_share: float | None
    answers_cut: int
    reasoning_cut_share: float | None  # at a limit of tokens, per cent of all samples
    reasoning_closed: int  # of these, those that were closed for the model, which answered
    answers_cut_share: float | None  # per cent of all samples


@dataclass(frozen=True)
class TokenRow:
    """What a method's models generated for their scores in one column, over its seeds, whether they reason or not.

    `tokens` is the mean over all samples, `tokens_per_solved` all tokens for each solved `item`, or `sample` where the protocol draws
    several of an item. It is None for a reason. `truncated_share`: per cent of all samples that ended at a limit of tokens.
    """

    teacher: str
    student: str | None
    method: str
    task: str
    protocol: str
    solved: str
    tokens: float | None
    tokens_per_solved: float | None
    tokens_per_solved_reason: str | None
    truncated_share: float | None


def _in_order(title: str) -> list[str | int]:
    parts = re.split(r"(\d+)", title.rstrip("]"))
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]


def method_order(name: str) -> tuple[bool, str, str]:
    """What methods are sorted by: sft first, then by name, a tuned one after its default."""
    return base_name(name) != "sft", base_name(name), name


REASONING_FIELDS = tuple(field.name for field in fields(ReasoningRow))[5:]
COST_FIELDS = tuple(field.name for field in fields(CostRow))[4:]


@dataclass
class Leaderboard:
    """All scores and costs, and the notes that a reader needs."""

    rows: list[ScoreRow] = field(default_factory=list)
    costs: list[CostRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    columns: list[ColumnRow] = field(default_factory=list)
    published: list[PublishedTable] = field(default_factory=list)  # results of others, on request
    reasoning: list[ReasoningRow] = field(default_factory=list)  # of the columns in which a model reasons
    tokens: list[TokenRow] = field(default_factory=list)  # of all, on request
    tuning: list[TunedMethod] = field(default_factory=list)  # of the methods whose setting was chosen by trials
    gains: list[GainRow] = field(default_factory=list)  # tuned against default
    tuning_tables: bool = False  # whether the tables of what tuning gave are shown

    @property
    def tasks(self) -> list[str]:
        """The titles of the columns; of one task under several limits, the smaller first."""
        return sorted({row.column for row in self.rows}, key=_in_order)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Teacher and student of each table."""
        scored = {(row.teacher, row.student) for row in self.rows if row.student is not None}
        return sorted(scored | {(row.teacher, row.student) for row in self.costs})

    def methods(self, teacher: str, student: str | None) -> list[str]:
        """The methods of a pair: sft first, then the others by name, a tuned one after its default."""
        names = {row.method for row in self.rows if (row.teacher, row.student) == (teacher, student)}
        return sorted(names, key=method_order)

    def tuning_of(self, teacher: str, student: str | None, method: str) -> TuningRow | None:
        """How the setting of a method was chosen; None of one with its default setting."""
        key = (teacher, student, method)
        found = (each.row for each in self.tuning)
        return next((row for row in found if (row.teacher, row.student, row.method) == key), None)

    def is_tuned(self, teacher: str, student: str | None, method: str) -> bool:
        """Whether the setting of a method was chosen by trials."""
        return self.tuning_of(teacher, student, method) is not None

    def find(self, teacher: str, student: str | None, method: str, task: str) -> ScoreRow | None:
        """One score by the title of its column."""
        key = (teacher, student, method, task)
        return next((row for row in self.rows if (row.teacher, row.student, row.method, row.column) == key), None)

    def reasoning_of(self, row: ScoreRow) -> ReasoningRow | None:
        """What the models of a score generated; None where none of its column reasons."""
        names = ("teacher", "student", "method", "task", "protocol")
        wanted = [getattr(row, name) for name in names]
        return next((each for each in self.reasoning if [getattr(each, name) for name in names] == wanted), None)

    def reasons(self, task: str) -> bool:
        """Whether a model reasons in a column, which is given by its title."""
        return any(column_title(row.task, row.protocol) == task for row in self.reasoning)

    def min_detectable_effect(self, teacher: str, student: str | None, task: str) -> float | None:
        """The minimum detectable effect of a column."""
        effects: dict[tuple[str, str | None, str], float | None] = {
            (row.teacher, row.student, column_title(row.task, row.protocol)): row.min_detectable_effect
            for row in self.columns
        }
        return effects.get((teacher, student, task))

    def as_json(self, costs: bool) -> dict[str, Any]:
        """The document of `harness leaderboard --format json`."""
        document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "rows": [asdict(row) for row in self.rows]}
        document["columns"] = [asdict(row) for row in self.columns]
        if self.reasoning:
            document["reasoning"] = [asdict(row) for row in self.reasoning]
        if self.tokens:
            document["tokens"] = [asdict(row) for row in self.tokens]
        if self.tuning:
            document |= as_json(self.tuning, self.gains)
        if costs:
            document["costs"] = [asdict(row) for row in self.costs]
        if self.published:
            document["published"] = [table.model_dump() for table in self.published]
        return document | {"notes": self.notes}

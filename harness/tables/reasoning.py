"""What reasoning costs, beside the scores of the tasks in which a model reasons. Tables of models that do not have none of it.

`token_rows` says of every model and task what it generated: in the JSON of a leaderboard, and in `harness show`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness.runs.records import Record
from harness.tables.grid import DASH
from harness.tables.rows import Leaderboard, ReasoningRow, ScoreRow, TokenRow

# Of each column: the field that it shows.
_COLUMNS = {
    "tokens per item": "tokens",
    "tokens per solved item": "tokens_per_solved",
    "reasoning never ended (%)": "never_ended_share",
    "reasoning cut off (%)": "reasoning_cut_share",
    "answers cut off (%)": "answers_cut_share",
}
HEADER = tuple(_COLUMNS)
LEGEND = (
    "Tokens: reasoning and answer, mean over all samples; per solved item: all tokens for each sample that is right. Reasoning that "
    "never ended is no answer. Cut off: at a limit of tokens; with reasoning_end=close the model answers after it. See docs/reasoning.md."
)


def reasoning_rows(cells: Iterable[Sequence[Record]]) -> list[ReasoningRow]:
    """A row for each cell (its records over the seeds) of every column in which some model reasons."""
    groups = [done for cell in cells if (done := [record for record in cell if record.status == "done"])]
    columns = {record.cell.column for done in groups for record in done if record.reasoning is not None}
    return [_row(done) for done in groups if done[0].cell.column in columns]


def reasoning_cells(board: Leaderboard, row: ScoreRow | None) -> list[str]:
    """What stands beside a score, in the order of `HEADER`."""
    found = None if row is None else board.reasoning_of(row)
    if found is None:
        return [DASH] * len(HEADER)
    values = [getattr(found, name) for name in _COLUMNS.values()]
    return [DASH if value is None else f"{value:,.1f}" for value in values]


def token_rows(board: Leaderboard, records: Iterable[Record]) -> list[TokenRow]:
    """What the models of a board's scores generated for them, in the order of its rows."""
    cells: dict[tuple[Any, ...], dict[str, Record]] = {}
    for record in records:
        cell = record.cell
        if record.status == "done" and cell.task is not None:
            key = (cell.teacher, cell.student, cell.method, cell.task, cell.task_version, cell.protocol_label)
            cells.setdefault(key, {})[cell.key] = record  # the same record found twice counts once
    names = ("teacher", "student", "method", "task", "task_version", "protocol")
    found = [cells.get(tuple(getattr(row, name) for name in names)) for row in board.rows]
    return [tokens_of(list(cell.values())) for cell in found if cell]


def tokens_of(records: Sequence[Record]) -> TokenRow:
    """What was generated for the scores of one cell."""
    cell, counts = records[0].cell, [record.n for record in records if record.n is not None]
    total, spent, right = sum(count.total for count in counts), _spent(records), _right(records)
    several = cell.protocol is not None and cell.protocol.num_samples > 1
    per_solved = _ratio(spent, right)
    reason = None
    if per_solved is None:
        unknown = "it is not known which samples are right: a score that is not right or wrong, or an older record"
        reason = unknown if right is None else "nothing is solved" if not right else "the tokens are not known"
    return TokenRow(
        teacher=cell.teacher,
        student=cell.student,
        method=cell.method,
        task=str(cell.task),
        protocol=cell.protocol_label,
        solved="sample" if several else "item",
        tokens=_ratio(spent, total),
        tokens_per_solved=per_solved,
        tokens_per_solved_reason=reason,
        truncated_share=_ratio(100 * sum(count.truncated for count in counts), total),
    )


def _row(records: Sequence[Record]) -> ReasoningRow:
    cell = records[0].cell
    uses = [(record.reasoning, record.n.total) for record in records if record.n is not None]
    total = sum(samples for _, samples in uses)
    reasoned = [(use, samples) for use, samples in uses if use is not None]
    thought = [(use.reasoning_tokens, samples) for use, samples in reasoned]
    spent, right = _spent(records), _right(records)
    cut = [(use.reasoning_cut_share, samples) for use, samples in reasoned]
    return ReasoningRow(
        teacher=cell.teacher,
        student=cell.student,
        method=cell.method,
        task=str(cell.task),
        protocol=cell.protocol_label,
        tokens=_ratio(spent, total),
        tokens_per_solved=_ratio(spent, right),
        reasoning_tokens=_mean(thought, total),
        never_ended=sum(use.never_ended for use, _ in reasoned),
        never_ended_share=_ratio(100 * sum(use.never_ended for use, _ in reasoned), total) if reasoned else None,
        reasoning_cut_share=_mean(cut, total),
        reasoning_closed=sum(use.reasoning_closed or 0 for use, _ in reasoned),
        answers_cut=sum(use.answers_cut for use, _ in reasoned),
        answers_cut_share=_ratio(100 * sum(use.answers_cut for use, _ in reasoned), total) if reasoned else None,
    )


def _mean(values: Sequence[tuple[float | None, int]], total: int) -> float | None:
    """Means over samples, with their numbers, as a mean over all; None where one is not known, or there is none."""
    if not values or any(mean is None for mean, _ in values):
        return None
    return _ratio(sum((mean or 0.0) * samples for mean, samples in values), total)


def _spent(records: Sequence[Record]) -> float | None:
    """All tokens of some evaluations."""
    tokens = [_tokens(record) for record in records]
    return None if None in tokens else sum(count for count in tokens if count is not None)


def _right(records: Sequence[Record]) -> float | None:
    """The samples of some evaluations that are right."""
    solved = [_solved(record) for record in records]
    return None if None in solved else sum(count for count in solved if count is not None)


def _tokens(record: Record) -> float | None:
    """All that was generated in an evaluation."""
    if record.cost.tokens is not None:
        return record.cost.tokens
    mean = record.reasoning.tokens if record.reasoning is not None else None
    return None if mean is None or record.n is None else mean * record.n.total


def _solved(record: Record) -> float | None:
    """The samples that are right; None of a metric that is not right or wrong."""
    use, headline = record.reasoning, record.metrics.get(str(record.headline))
    if use is not None and use.tokens is not None and use.tokens_per_solved is not None and record.n is not None:
        return use.tokens * record.n.total / use.tokens_per_solved
    if record.cost.tokens is not None and record.cost.tokens_per_solved:
        return record.cost.tokens / record.cost.tokens_per_solved
    # Wilson's interval is that of counts alone.
    if headline is None or headline.value is None or headline.ci_method != "wilson" or record.n is None:
        return None
    return headline.value / 100 * record.n.scored if headline.higher_is_better else None


def _ratio(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else round(value / by, 2)

"""What reasoning costs, beside the scores of the tasks in which a model reasons. Tables of models that do not have none of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.runs.records import Record
from harness.tables.grid import DASH
from harness.tables.rows import Leaderboard, ReasoningRow, ScoreRow

HEADER = ("tokens per item", "tokens per solved item", "reasoning never ended (%)")
LEGEND = (
    "Tokens: reasoning and answer, mean over all samples; per solved item: all tokens for each sample that is right. Reasoning that "
    "never ended is no answer. See docs/reasoning.md."
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
    values = (found.tokens, found.tokens_per_solved, found.never_ended_share)
    return [DASH if value is None else f"{value:,.1f}" for value in values]


def _row(records: Sequence[Record]) -> ReasoningRow:
    cell = records[0].cell
    uses = [(record.reasoning, record.n.total) for record in records if record.n is not None]
    total = sum(samples for _, samples in uses)
    reasoned = [(use, samples) for use, samples in uses if use is not None]
    thought = [(use.reasoning_tokens, samples) for use, samples in reasoned]
    tokens = [_tokens(record) for record in records]
    solved = [_solved(record) for record in records]
    spent = sum(count for count in tokens if count is not None) if None not in tokens else None
    right = sum(count for count in solved if count is not None) if None not in solved else None
    return ReasoningRow(
        teacher=cell.teacher,
        student=cell.student,
        method=cell.method,
        task=str(cell.task),
        protocol=cell.protocol_label,
        tokens=_ratio(spent, total),
        tokens_per_solved=_ratio(spent, right),
        reasoning_tokens=(
            None
            if not thought or any(mean is None for mean, _ in thought)
            else _ratio(sum((mean or 0.0) * samples for mean, samples in thought), total)
        ),
        never_ended=sum(use.never_ended for use, _ in reasoned),
        never_ended_share=_ratio(100 * sum(use.never_ended for use, _ in reasoned), total) if reasoned else None,
        answers_cut=sum(use.answers_cut for use, _ in reasoned),
    )


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
    # Wilson's interval is that of counts alone.
    if headline is None or headline.value is None or headline.ci_method != "wilson" or record.n is None:
        return None
    return headline.value / 100 * record.n.scored if headline.higher_is_better else None


def _ratio(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else round(value / by, 2)

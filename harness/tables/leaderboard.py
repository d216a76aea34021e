"""Makes the leaderboard: for each teacher and student, the methods by the headline metrics of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dskd.errors import InputError
from harness.config.cells import TEACHER_METHOD
from harness.config.tuning import TUNED
from harness.protocols import column_title
from harness.results.distinct import distinct_records, newest_versions
from harness.results.item_scores import Items, ItemScores, stack
from harness.runs.records import Record
from harness.statistics.over_seeds import over_seeds
from harness.statistics.ranking import BASELINE, Standing, rank, shares_of_gap
from harness.tables.contamination_notes import contamination_notes
from harness.tables.notes import mixed_settings, table_notes, untuned_notes
from harness.tables.reasoning import reasoning_rows
from harness.tables.rows import COST_FIELDS, ColumnRow, CostRow, Leaderboard, ScoreRow
from harness.tables.tuning_gains import gain_rows
from harness.tables.tuning_rows import tuned_methods


def make_leaderboard(records: Sequence[Record], items: Mapping[str, Items] | None = None) -> Leaderboard:
    """The leaderboard of these records, in any order. The same record found twice counts once.

    `items` are the item scores by `record.cell.key`. Without them there are means and intervals, but no comparisons. InputError if two
    records of one cell were made with different settings, as when folders of several runs are read together.
    """
    records = distinct_records(records)
    evaluations = [record for record in records if record.cell.task is not None]
    newest, notes = newest_versions(evaluations)
    scores: dict[_Key, ItemScores] = {}
    board = Leaderboard()
    cells = _grouped(newest, _cell_key)
    for group in cells:
        metric = next((str(record.headline) for record in group if record.status == "done"), "")
        item_scores, problem = _item_scores(group, metric, items or {})
        if item_scores is not None:
            scores[_cell_key(group[0])] = item_scores
        if problem:
            notes.append(problem)
        board.rows.append(_score_row(group, metric, item_scores))
    board.reasoning = reasoning_rows(cells)
    trainings = [record for record in records if record.cell.task is None and record.status == "done"]
    for group in _grouped(trainings, lambda r: (r.cell.teacher, r.cell.student or "", r.cell.method)):
        board.costs.append(_cost_row(group))
    board.tuning, tuning_notes = tuned_methods(trainings)
    notes += tuning_notes
    notes += _rank(board, scores)
    notes += untuned_notes(board)
    board.gains = gain_rows(board, scores)
    board.notes = [*notes, *table_notes(board, newest), *mixed_settings(cells), *contamination_notes(newest)]
    return board


_Key = tuple[str, str, str, str, str]


def _cell_key(record: Record) -> _Key:
    """The cell of an evaluation without its seed."""
    cell = record.cell
    return cell.teacher, cell.student or "", cell.method, cell.task or "", cell.protocol_label


def _item_scores(
    group: Sequence[Record], metric: str, items: Mapping[str, Items]
) -> tuple[ItemScores | None, str | None]:
    """The item scores of all seeds that have a score, or why the seeds do not fit together."""
    scored = [r for r in group if r.status == "done" and metric in r.metrics and r.metrics[metric].value is not None]
    if not scored or any(record.cell.key not in items for record in scored):
        return None, None
    try:
        return stack([(record, items[record.cell.key]) for record in scored], metric), None
    except InputError as error:
        return None, f"not compared: {error}"


def _rank(board: Leaderboard, scores: Mapping[_Key, ItemScores]) -> list[str]:
    """Compare the methods within each column of a pair; returns notes on what could not be compared.

    Where methods are tuned, these are compared among themselves alone: against a default setting, a tuned one has had more tries.
    """
    notes = []
    columns = sorted({(r.teacher, r.student, r.task, r.protocol) for r in board.rows if r.student is not None})
    for teacher, student, task, protocol in columns:
        column = (teacher, student, task, protocol)
        rows = {
            row.method: (number, row)
            for number, row in enumerate(board.rows)
            if (row.teacher, row.student, row.task, row.protocol) == column
        }
        values = {method: row.value for method, (_, row) in rows.items() if row.value is not None}
        keys = {method: (teacher, str(student), method, task, protocol) for method in values}
        scores_of_methods = {method: scores[key] for method, key in keys.items() if key in scores}
        higher = all(row.higher_is_better for _, row in rows.values())
        teacher_scores = scores.get((teacher, "", TEACHER_METHOD, task, protocol))
        tuned = {method: value for method, value in values.items() if board.is_tuned(teacher, student, method)}
        others = {method: value for method, value in values.items() if method not in tuned}
        of_tuned = f"{BASELINE}+{TUNED}" if f"{BASELINE}+{TUNED}" in tuned else BASELINE
        ranking = rank(
            tuned or values,
            scores_of_methods,
            teacher_scores,
            higher_is_better=higher,
            baseline=of_tuned if tuned else BASELINE,
        )
        standings = dict(ranking.standings)
        if tuned:
            gaps = shares_of_gap(others, scores_of_methods, teacher_scores, higher_is_better=higher)
            standings |= {method: Standing.unranked(*gap) for method, gap in gaps.items()}
        for method, standing in standings.items():
            number, row = rows[method]
            board.rows[number] = replace(row, **vars(standing))
        board.columns.append(ColumnRow(teacher, str(student), task, protocol, ranking.min_detectable_effect))
        notes += [f"{teacher} -> {student}, {column_title(task, protocol)}: {note}" for note in ranking.notes]
    return notes


def _grouped(records: Iterable[Record], key: Callable[[Record], tuple[str, ...]]) -> list[list[Record]]:
    groups: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return [sorted(groups[name], key=lambda r: r.cell.seed or 0) for name in sorted(groups)]


def _score_row(group: Sequence[Record], metric: str, scores: ItemScores | None) -> ScoreRow:
    cell = group[0].cell
    done = [record for record in group if record.status == "done"]
    measured = [record.metrics[metric] for record in done if metric in record.metrics]
    score = over_seeds(measured, scores)
    counts = [record.n for record in done if record.n is not None]
    total = sum(count.total for count in counts)
    invalid, truncated = sum(count.invalid for count in counts), sum(count.truncated for count in counts)
    return ScoreRow(
        teacher=cell.teacher,
        student=cell.student,
        method=cell.method,
        task=str(cell.task),
        task_version=str(cell.task_version),
        metric=metric,
        value=_rounded(score.value),
        sd=_rounded(score.sd),
        ci95=(round(score.ci95[0], 4), round(score.ci95[1], 4)) if score.ci95 else None,
        seeds=score.seeds,
        n=max((count.total for count in counts), default=0),
        invalid=invalid,
        truncated=truncated,
        harness_error=sum(count.harness_error for count in counts),
        failed=len(group) - len(done),
        unscored=len(done) - score.seeds,
        protocol=cell.protocol_label,
        higher_is_better=all(value.higher_is_better for value in measured),
        invalid_share=round(100 * invalid / total, 2) if total else None,
        truncated_share=round(100 * truncated / total, 2) if total else None,
    )


def _cost_row(group: Sequence[Record]) -> CostRow:
    def mean(values: Iterable[float | None]) -> float | None:
        measured = [value for value in values if value is not None]
        return round(sum(measured) / len(measured), 3) if measured else None

    return CostRow(
        teacher=group[0].cell.teacher,
        student=str(group[0].cell.student),
        method=group[0].cell.method,
        seeds=len(group),
        **{name: mean(getattr(record.cost, name) for record in group) for name in COST_FIELDS},
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

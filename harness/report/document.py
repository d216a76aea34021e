"""All that the page shows, as one JSON document; a pure function of the runs' folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dskd.errors import InputError
from harness.report.alignment import alignments
from harness.report.curves import learning_curves
from harness.report.differences import differences
from harness.report.results import Result, read_results
from harness.report.samples import MOST_ANSWERS, browsable
from harness.report.scores import cost_rows, environments, score_rows
from harness.results.item_scores import Items, read_items
from harness.results.load import key_of
from harness.results.run_file import RunFile, missing_records
from harness.runs.store import RUN, SAMPLES
from harness.suggestions import did_you_mean
from harness.tables.leaderboard import Leaderboard, make_leaderboard

DEFAULT_ANCHOR = "sft"


def make_document(
    roots: Sequence[Path], *, anchor: str = DEFAULT_ANCHOR, most_answers: int = MOST_ANSWERS
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The report's document and that of its sample browser; methods are compared with `anchor`.

    InputError as `read_results` and `make_leaderboard` have it, and for an anchor that no pair has.
    """
    results, problems = read_results(roots)
    items, without_items = _items(results)
    board = make_leaderboard([result.record for result in results], items)
    results = _shown(results, board)
    methods = {row.method for row in board.rows if row.student is not None}
    if anchor not in methods and anchor != DEFAULT_ANCHOR:
        raise InputError(f"--anchor {anchor}: no method of this run{did_you_mean(anchor, methods)}")
    compared = differences(results, anchor, items)
    curves, without_curve = learning_curves(results)
    samples, unreadable = browsable(results, most_answers)
    told = {problem.split(": ")[0] for problem in unreadable}
    without_items = [problem for problem in without_items if problem.split(": ")[0] not in told]
    failed = [f"{result.name}: failed: {result.record.error}" for result in results if result.record.status == "failed"]
    missing = [_named(text, root) for root in roots for text in missing_records(root)]
    document = {
        "title": ", ".join(dict.fromkeys(_matrix(root) for root in roots)),
        "anchor": anchor,
        "pairs": [{"teacher": teacher, "student": student} for teacher, student in board.pairs],
        "teachers": sorted({row.teacher for row in board.rows}),
        "tasks": board.tasks,
        "scores": score_rows(board, results),
        "costs": cost_rows(board),
        "notes": board.notes,
        "problems": [*problems, *failed, *without_curve, *unreadable, *without_items],
        "missing": missing,
        "records": len(results),
        "seeds": sorted({r.record.cell.seed for r in results if r.record.cell.seed is not None}),
        "environments": environments(results),
        "differences": compared,
        "curves": curves,
        "alignment": alignments(results),
    }
    return document, samples


def _items(results: Sequence[Result]) -> tuple[dict[str, Items], list[str]]:
    """The items of evaluations by `key_of`, on which intervals and ranks rest; and, in words, which have none."""
    found, problems = {}, []
    for result in results:
        if result.record.cell.task is None or result.record.status != "done" or not (result.folder / SAMPLES).is_file():
            continue  # a missing file is told by the browser of samples
        try:
            found[key_of(result.record)] = read_items(result.folder)
        except InputError as error:
            problems.append(str(error).replace(str(result.folder), result.name))
    return found, problems


def _shown(results: Sequence[Result], board: Leaderboard) -> list[Result]:
    """Trainings, and the evaluations whose version of their task the tables show."""
    versions = {row.column: row.task_version for row in board.rows}
    return [
        result
        for result in results
        if result.record.cell.task is None
        or versions.get(str(result.record.cell.column)) == str(result.record.cell.task_version)
    ]


def _matrix(root: Path) -> str:
    """The name of the matrix that was run; the folder's where it does not say."""
    try:
        return RunFile.model_validate_json((root / RUN).read_text(encoding="utf-8")).matrix
    except (OSError, ValueError, ValidationError):
        return root.resolve().name


def _named(text: str, root: Path) -> str:
    return text.replace(str(root), root.resolve().name, 1)

"""The content of the page as one JSON document. It depends on the run folders only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dskd.errors import InputError
from harness.claims.claims_file import DEFAULT, find_claims, read_claims
from harness.report.alignment import alignments
from harness.report.claims import claims_of
from harness.report.curves import learning_curves
from harness.report.differences import differences
from harness.report.distances import distances_of
from harness.report.results import Result, read_results
from harness.report.samples import MOST_COMPLETIONS, browsable
from harness.report.scores import environments, score_rows
from harness.report.tuning import cost_of, gains_of, tuning_of
from harness.results.item_scores import Results
from harness.results.load import read_all_items
from harness.results.run_file import RunFile, missing_records
from harness.runs.store import RUN
from harness.suggestions import did_you_mean
from harness.tables.leaderboard import make_leaderboard
from harness.tables.rows import Leaderboard

DEFAULT_ANCHOR = "sft"


def make_document(
    roots: Sequence[Path],
    *,
    anchor: str = DEFAULT_ANCHOR,
    most_completions: int = MOST_COMPLETIONS,
    claims: Path | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document of the report, and that of its sample browser, which has about `most_completions` completions.

    `claims` is a file of them; without it, those that ship are answered if there are records for any.

    InputError as of `read_results` and `make_leaderboard`, and for an anchor that no pair has.
    """
    results, problems = read_results(roots)
    items, damaged = read_all_items({result.folder: result.record for result in results})
    board = make_leaderboard([result.record for result in results], items)
    results = _shown(results, board)
    methods = {row.method for row in board.rows if row.student is not None}
    if anchor not in methods and anchor != DEFAULT_ANCHOR:
        raise InputError(f"--anchor {anchor}: no method of this run{did_you_mean(anchor, methods)}")
    compared = differences(results, anchor, items)
    curves, without_curve = learning_curves(results)
    samples, unreadable = browsable(results, most_completions)
    names = {result.folder: result.name for result in results}
    reported = {problem.split(": ")[0] for problem in unreadable}
    without_items = [message.replace(str(folder), names[folder]) for folder, message in damaged.items()]
    without_items = [problem for problem in without_items if problem.split(": ")[0] not in reported]
    failed = [f"{result.name}: failed: {result.record.error}" for result in results if result.record.status == "failed"]
    distances, unread = distances_of(roots, board)
    asked = read_claims(claims if claims is not None else find_claims(DEFAULT))
    whole = Results([result.record for result in results], items, [])
    missing = [text.replace(str(root), root.resolve().name, 1) for root in roots for text in missing_records(root)]
    document = {
        "title": ", ".join(dict.fromkeys(_matrix(root) for root in roots)),
        "anchor": anchor,
        "pairs": [{"teacher": teacher, "student": student} for teacher, student in board.pairs],
        "teachers": sorted({row.teacher for row in board.rows}),
        "tasks": board.tasks,
        "scores": score_rows(board, results),
        "costs": [cost_of(board, row) for row in board.costs],  # means over the seeds, null if not measured
        "tuning": tuning_of(board),
        "tuning_gains": gains_of(board),
        "notes": board.notes,
        "problems": [*problems, *failed, *without_curve, *unreadable, *without_items, *unread],
        "missing": missing,
        "records": len(results),
        "seeds": sorted({r.record.cell.seed for r in results if r.record.cell.seed is not None}),
        "environments": environments(results),
        "differences": compared,
        "curves": curves,
        "alignment": alignments(results),
        "distances": distances,
        "claims": claims_of(asked, whole, roots, asked=claims is not None),
    }
    return document, samples


def _shown(results: Sequence[Result], board: Leaderboard) -> list[Result]:
    """Trainings, and the evaluations of the task versions that the tables show."""
    versions = {row.column: row.task_version for row in board.rows}
    return [
        result
        for result in results
        if result.record.cell.task is None
        or versions.get(str(result.record.cell.column)) == str(result.record.cell.task_version)
    ]


def _matrix(root: Path) -> str:
    """The name of the matrix that was run, or that of the folder if it is not known."""
    try:
        return RunFile.model_validate_json((root / RUN).read_text(encoding="utf-8")).matrix
    except (OSError, ValueError, ValidationError):
        return root.resolve().name

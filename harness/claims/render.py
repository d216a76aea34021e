"""Answers to claims as rows of a table, as Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.claims.rows import ALPHA, AnsweredClaim, Answers, Tested
from harness.statistics.joined_tasks import MOST_SEEDS
from harness.tables.grid import DASH, Grid
from harness.tables.grid_formats import markdown_of, md_escape

SCHEMA_VERSION = 1
HEADER = (
    "claim", "answer", "pair", "compared", "difference", "95 % interval", "p", "p (Holm)", "seeds", "items", "seeds needed",
)  # fmt: skip


def rows(answers: Answers) -> list[list[str]]:
    """A row for each test; a claim with none or several tests has one of its own before them."""
    found = []
    for claim in answers.claims:
        alone = len(claim.tests) == 1 and not claim.missing
        if not alone:
            found.append([claim.id, claim.answer, *[DASH] * (len(HEADER) - 2)])
        found += [[claim.id if alone else "", *_cells(test)] for test in claim.tests]
    return found


def _cells(test: Tested) -> list[str]:
    named = [test.answer, f"{test.teacher} -> {test.student}", f"{test.better} - {test.than}"]
    if test.difference is None:
        return [*named, *[DASH] * (len(HEADER) - 4)]
    seeds = "/".join(map(str, dict.fromkeys(test.seeds or ())))
    tested = [_number(test.p_value, ".3g"), _number(test.p_holm, ".3g"), seeds, str(test.items)]
    more = f"> {MOST_SEEDS}" if test.answer == "undecided" and test.p_value is not None else DASH
    needed = more if test.seeds_needed is None else str(test.seeds_needed)
    return [*named, f"{test.difference:+.1f}", _interval(test.ci95), *tested, needed]


def _number(value: float | None, form: str) -> str:
    return DASH if value is None else format(value, form)


def _interval(ends: Sequence[float] | None) -> str:
    return DASH if ends is None else f"{ends[0]:+.1f} to {ends[1]:+.1f}"


def legend(answers: Answers) -> str:
    """What the numbers are."""
    tests = f"{answers.number} tests" if answers.number != 1 else "one test"
    return (
        f"Difference: mean over the tasks, in points, on the same items. p (Holm): corrected over the {tests} of the file; "
        f"an answer is given below {ALPHA:g}. A claim holds where all of its tests do, and fails where one fails. "
        "Not significant is undecided."
    )


def statements(answers: Answers) -> list[str]:
    """A line for each claim: what it says in our terms, and its source."""
    return [f"{claim.id}: {claim.statement}. {claim.says} ({claim.source})" for claim in answers.claims]


def reasons(claim: AnsweredClaim) -> list[str]:
    """Why the tests of a claim decide nothing, and what it would take."""
    return [
        f"{claim.id}: {test.better} - {test.than} ({test.teacher} -> {test.student}): undecided: {test.reason}"
        for test in claim.tests
        if test.reason
    ]


def missing(claim: AnsweredClaim) -> list[str]:
    """What a claim has no records of, and the command that makes them."""
    lines = [f"{claim.id}: no records: {line}" for line in claim.missing]
    if claim.command:
        lines.append(f"{claim.id}: {claim.command}{f'   # {claim.matrix}' if claim.matrix else ''}")
    return lines


def markdown(answers: Answers) -> str:
    """A page of Markdown: a table, and below it the claims in words, and what is undecided or missing."""
    lines = [*statements(answers)]
    for lines_of in (reasons, missing):
        lines += [line for claim in answers.claims for line in lines_of(claim)]
    grid = Grid(f"Claims: {answers.name}", list(HEADER), rows(answers))
    return markdown_of([grid], md_escape(legend(answers)), [*lines, *answers.notes])


def document(answers: Answers) -> dict[str, Any]:
    """All of it as JSON. A committed one is what `harness claims --check` compares with."""
    return {
        "schema_version": SCHEMA_VERSION,
        "name": answers.name,
        "tests": answers.number,
        "level": ALPHA,
        "claims": [asdict(claim) for claim in answers.claims],
        "notes": answers.notes,
    }

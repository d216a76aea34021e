"""Answers to published claims, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.claims.answers import answer_claims
from harness.claims.claims_file import ClaimsFile
from harness.claims.rows import ALPHA
from harness.results.item_scores import Results
from harness.results.run_file import run_matrices


def claims_of(claims: ClaimsFile, results: Results, roots: Sequence[Path], *, asked: bool) -> dict[str, Any] | None:
    """The answers to a file of claims.

    Args:
        claims: The file.
        results: Of all runs of the page.
        roots: Their folders.
        asked: Whether the file was asked for. Else there is no section where no claim has all of its records.

    Returns:
        The claims with their tests, the number of tests, and the level; None for no section.
    """
    answers = answer_claims(claims, results, [name for root in roots for name in run_matrices(root)])
    if not asked and not any(claim.tests for claim in answers.claims):
        return None
    return {
        "name": answers.name,
        "tests": answers.number,
        "level": ALPHA,
        "claims": [asdict(claim) for claim in answers.claims],
    }

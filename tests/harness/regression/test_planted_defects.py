"""Defects that were planted into whole runs (tests/benchmarks/regression_gate.py): the check of what those runs scored has to fail.

tests/golden/regression/ holds their scores and digests as baseline files: `unchanged.json` of the run before, one file a defect. A
`slow` test plants them anew.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.regression.baseline import read_baseline, write_baseline
from helpers.paths import GOLDEN

STORED = GOLDEN / "regression"


def check(defect: str, folder: Path, *options: str) -> tuple[int, dict[str, list[str]]]:
    """The exit code and the reasons by cell, of the cells that a defect was planted into."""
    unchanged, planted = read_baseline(STORED / "unchanged.json"), read_baseline(STORED / f"{defect}.json")
    cells = {name: unchanged.cells[name] for name in planted.cells}
    write_baseline(folder / "baseline.json", unchanged.model_copy(update={"cells": cells}))
    arguments = [
        "check",
        str(STORED / f"{defect}.json"),
        "--baseline",
        str(folder / "baseline.json"),
        "--json",
        *options,
    ]
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, {cell["name"]: cell["reasons"] for cell in json.loads(result.stdout)["cells"]}


@pytest.mark.parametrize("defect", ["temperature", "alignment"])
def test_a_planted_defect_fails_the_check(defect: str, tmp_path: Path) -> None:
    code, reasons = check(defect, tmp_path)
    assert code == 1
    assert len(reasons) == 3
    assert all(
        "outputs changed" in told[-1] and "the code behaves differently" in told[-1] for told in reasons.values()
    )


def test_the_scores_alone_see_a_shifted_alignment_and_not_that_temperature(tmp_path: Path) -> None:
    """Logits multiplied by 2 instead of divided taught these students better: only their outputs say that something is wrong."""
    assert check("alignment", tmp_path, "--exact-outputs", "never")[0] == 1
    assert check("temperature", tmp_path, "--exact-outputs", "never")[0] == 0


def test_the_stored_run_passes_against_itself(tmp_path: Path) -> None:
    assert check("unchanged", tmp_path) == (0, {name: [] for name in read_baseline(STORED / "unchanged.json").cells})

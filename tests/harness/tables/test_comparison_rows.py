"""`harness compare --only` and `--skip`: rows by names and patterns; students of other data are rows of their own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from helpers.written_runs import write_run


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Result]:
    """Compares two methods of a run with three students, one of them trained on other data."""
    for student in ("small", "small+alpaca", "tiny"):
        write_run(tmp_path, student=student, methods=("sft", "kd+low"), logged=False)
        shutil.rmtree(tmp_path / "cells" / "teacher")

    def comparing(*options: str) -> Result:
        return CliRunner().invoke(main, ["compare", "sft", "kd+low", "--results", str(tmp_path), *options, "--json"])

    return comparing


def students(result: Result) -> list[str]:
    assert result.exit_code == 0, result.stderr
    return [row["student"] for row in json.loads(result.stdout)["comparisons"]]


def test_rows_are_chosen_by_name_and_pattern(compare: Callable[..., Result]) -> None:
    assert students(compare()) == ["small", "small+alpaca", "tiny"]
    assert students(compare("--only", "student=small*")) == ["small", "small+alpaca"]
    assert students(compare("--skip", "student=small")) == ["small+alpaca", "tiny"]
    assert students(compare("--only", "student=*", "--skip", "student=*+*", "--skip", "student=tiny")) == ["small"]


def test_a_slip_or_nothing_left_is_one_line(compare: Callable[..., Result]) -> None:
    result = compare("--skip", "pupil=tiny")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: --skip pupil=tiny: no key 'pupil'; fix: use one of teacher, student, method, task\n",
    )
    result = compare("--skip", "student=*")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: compare: nothing in common; fix: use other methods, other folders")

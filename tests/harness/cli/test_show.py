"""`harness show`: what it says of a cell whose models were evaluated."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from harness.cli import main
from harness.planning.plan import make_plan
from helpers.finished_runs import finish, write_small_matrix


def test_it_says_by_which_items_the_settings_of_a_cell_may_be_chosen(tmp_path: Path) -> None:
    pairs = [{"teacher": "small-teacher", "student": "small-student", "methods": ["kd"]}]
    matrix = write_small_matrix(tmp_path / "matrix.yaml", 1, pairs=pairs)
    finish(make_plan(str(matrix), output_dir=tmp_path / "run", allow_code_execution=True))
    asked = ["show", "small-teacher__small-student/kd/seed0", "--results", str(tmp_path / "run")]
    result = CliRunner().invoke(main, asked, catch_exceptions=False)
    assert result.stdout.count("\n  validation: 200 generated items that are in no other set\n") == 3

"""A run over two training sets: a table for each, and the saved matrix takes the run up again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.mark.slow
def test_other_data_has_a_table_of_its_own(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path], harness: Callable[..., Any], tmp_path: Path
) -> None:
    tiny["data"]["other"] = {"small_world": "teacher", "limit": 24}
    del tiny["models"]["teacher"]["training"]
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["sft"]}]
    tiny["axes"] = {"data": ["student", "other"], "rate": {"low": {"training": {"learning_rate": 1e-4}}}}
    tiny["tasks"] = {
        "small_math": {"limit": 2, "max_new_tokens": 4},
        "small_instruct": {"limit": 2, "max_new_tokens": 4},
    }
    tiny["evaluation"]["score_teachers"] = False
    tiny["exclude"] = [{"data": "other", "task": "small_instruct"}]
    path, folder = write_matrix(tiny), tmp_path / "run"
    done = harness("run", "--matrix", path, "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    for student in ("same", "same+other"):
        assert f"teacher -> {student}" in done.stdout
        record = json.loads((folder / f"cells/teacher__{student}/sft+low/seed1/train/result.json").read_text())
        assert (record["cell"]["student"], record["cell"]["method"]) == (student, "sft+low")
    records = json.loads((folder / "run.json").read_text())["records"]
    assert all((folder / record / "result.json").is_file() for record in records)
    assert sum("same+other" in record for record in records) == 2
    assert len(records) == 5
    board = json.loads(harness("leaderboard", "--results", folder, "--format", "json").stdout)
    columns = {(row["student"], row["method"], row["task"]) for row in board["rows"]}
    assert columns == {
        ("same", "sft+low", "small_math"),
        ("same", "sft+low", "small_instruct"),
        ("same+other", "sft+low", "small_math"),
    }
    kept = yaml.safe_load((folder / "matrix.yaml").read_text())
    assert [pair["methods"] for pair in kept["pairs"]] == [["sft+low"], ["sft+low"]]
    plan = harness("plan", "--matrix", folder / "matrix.yaml", "--output-dir", folder, "--json")
    assert json.loads(plan.stdout)["counts"] == {"done": 5, "missing": 0, "stale": 0, "failed": 0}

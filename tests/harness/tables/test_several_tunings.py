"""Runs of several tuning seeds, with one fresh seed each, in one folder: what docs/statistics.md says of claims about tuning."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.results.load import load_results
from harness.tables.comparison import compare_methods
from helpers.stored_runs import answers, write_evaluation


def test_each_tuning_counts_as_one_seed(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for method, right in (("kd+tuned", 20), ("sft+tuned", 10 + seed)):
            write_evaluation(tmp_path / f"tuning{seed}", answers("small_math", right, 40), method=method, seed=seed)
    (row,), notes = compare_methods(load_results(tmp_path), "kd+tuned", "sft+tuned", {})
    assert (row.n_seeds, row.n_items) == (3, 40)
    assert row.difference == pytest.approx(100 * (20 - 12) / 40)
    assert row.test.startswith("t over seeds and items")
    assert notes == []

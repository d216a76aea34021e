"""A run that is killed again and again, harness or worker, ends with the same bytes, and nothing that is finished is computed twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.killed_runs import outcome_of, run_and_kill, start


def moments(number: int, longest: float, seed: int) -> Iterator[tuple[float, str]]:
    draw = random.Random(seed)
    for _ in range(number):
        yield draw.uniform(1.0, longest), draw.choice(["harness", "worker", "both"])


@pytest.mark.slow
def test_a_small_run_killed_at_a_few_moments_ends_the_same(tiny_pair: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_pair))
    command = ["run", "--matrix", "tiny.yaml", "--tries", "9", "--output-dir"]
    assert start([*command, "whole"], tmp_path).wait(300) == 0
    killed = run_and_kill([*command, "killed"], tmp_path, tmp_path / "killed", moments(6, 4.0, 0), limit=500)
    assert len(killed.kills) >= 2
    assert killed.twice == []
    assert outcome_of(tmp_path / "whole") == outcome_of(tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize(("matrix", "kills", "longest"), [("quick", 50, 14.0), ("referee-quick", 20, 20.0)])
def test_a_shipped_matrix_killed_again_and_again_ends_the_same(
    tmp_path: Path, matrix: str, kills: int, longest: float
) -> None:
    command = ["run", "--matrix", matrix, "--allow-code-execution", "--tries", "99", "--output-dir"]
    assert start([*command, "whole"], tmp_path).wait(3600) == 0
    killed = run_and_kill([*command, "killed"], tmp_path, tmp_path / "killed", moments(kills, longest, 1), limit=7200)
    assert len(killed.kills) == kills
    assert killed.twice == []
    whole, after = outcome_of(tmp_path / "whole"), outcome_of(tmp_path / "killed")
    assert whole.keys() == after.keys()
    assert [name for name in whole if whole[name] != after[name]] == []


@pytest.mark.slow
def test_the_number_of_jobs_at_once_changes_nothing(tmp_path: Path) -> None:
    command = ["run", "--matrix", "quick", "--allow-code-execution", "--output-dir"]
    for jobs in ("1", "2"):
        assert start([*command, jobs, "--jobs", jobs], tmp_path).wait(3600) == 0
    one, two = outcome_of(tmp_path / "1"), outcome_of(tmp_path / "2")
    assert [name for name in one if one[name] != two.get(name)] == []

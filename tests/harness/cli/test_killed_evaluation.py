"""An evaluation that is killed at any moment and started again gives the same samples and scores, byte for byte."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from harness.runs.records import read_record
from harness.tables.leaderboard import make_leaderboard

CELL = Path("cells/teacher/teacher/eval/drawn@v2+minillm-sampling")


def start(folder: Path, output: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "harness.cli",
            "run",
            "--matrix",
            "tiny.yaml",
            "--output-dir",
            output,
            "--only",
            "method=teacher",
        ],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "NO_COLOR": "1"},
    )


def results(folder: Path) -> tuple[bytes, dict[str, Any]]:
    record = json.loads((folder / CELL / "result.json").read_text())
    return (folder / CELL / "samples.jsonl").read_bytes(), {key: record[key] for key in ("n", "metrics", "identity")}


@pytest.mark.slow  # the usual tests kill whole runs, test_killed_runs.py
@pytest.mark.parametrize("kills", [20])
def test_killed_and_started_again_it_ends_the_same(
    tiny: dict[str, Any], harness: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, kills: int
) -> None:
    protocol = {"name": "minillm-sampling", "seeds": [1, 2], "samples": 3}
    tiny["tasks"] = {"drawn": {"task": "small_math", "protocol": protocol, "limit": 15, "max_new_tokens": 40}}
    tiny["evaluation"]["max_batch_size"] = 2
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    run = harness("run", "--matrix", "tiny.yaml", "--output-dir", "whole", "--only", "method=teacher", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    chance = random.Random(kills)
    answers = tmp_path / "killed" / CELL / "answers.jsonl"
    kept = 0
    for _ in range(kills):
        process = start(tmp_path, "killed")
        # Killed while it answers, at a moment that nothing is in step with.
        while process.poll() is None and (not answers.is_file() or len(answers.read_bytes().splitlines()) <= kept):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.05)
        assert process.poll() is None, "it was done before it was killed"
        kill_all(process)
        now = len(answers.read_bytes().splitlines())
        assert now > kept
        kept = now
    run = harness("run", "--matrix", "tiny.yaml", "--output-dir", "killed", "--only", "method=teacher", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    record = read_record(tmp_path / "whole" / CELL / "result.json")
    assert record.n is not None
    assert record.n.total == 15 * 2 * 3
    assert record.cell.column == "small_math [minillm-sampling, seeds=1 2, samples=3, max_new_tokens=40]"
    assert make_leaderboard([record]).tasks == [record.cell.column]
    assert not answers.exists()


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """The command and its jobs, which have sessions of their own."""
    command = psutil.Process(process.pid)
    all_of_them = [command, *command.children(recursive=True)]
    for each in all_of_them:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()
    psutil.wait_procs(all_of_them, timeout=30)

"""`harness run --executor slurm` makes what `harness run` makes, byte for byte, with a job preempted in mid-run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helpers.killed_runs import done, outcome_of
from helpers.slurm_cluster import SlurmCluster
from helpers.slurm_runs import wait_until
from helpers.tiny_matrix import NEW_MODEL, training

pytestmark = pytest.mark.cluster

_TRAINING = training(4)
MATRIX = {
    "schema_version": 1,
    "name": "tiny",
    "data": {"student": {"small_world": "student", "limit": 24}},
    "models": {
        "teacher": {**NEW_MODEL, "training": [_TRAINING]},
        "student": {**NEW_MODEL, "tokenizer": {"small_world": "sentencepiece"}},
    },
    "pairs": [{"teacher": "teacher", "student": "student", "methods": ["dskd-v2-eta"]}],
    "training": _TRAINING,
    "seeds": [1],
    "tasks": {"small_math": {"limit": 2, "max_new_tokens": 4}},
    "evaluation": {"engine": "transformers"},
}
SLURM = ["--executor", "slurm", "--executor-option", "poll=0.5", "--executor-option", "late=2"]


def harness(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "run", "--matrix", "tiny.yaml", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
    )


def ended(run: subprocess.Popen[str]) -> str:
    """What a run printed that ended well."""
    output, errors = run.communicate(timeout=900)
    assert run.returncode == 0, errors
    return output


def test_a_matrix_on_slurm_gives_the_same_bytes_as_on_this_machine(cluster: SlurmCluster, tmp_path: Path) -> None:
    for name in ("here", "slurm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tiny.yaml").write_text(yaml.safe_dump(MATRIX))
    here = ended(harness(tmp_path / "here", "--jobs", "2"))
    ended(harness(tmp_path / "slurm", *SLURM, "--executor-option", "detach=true"))
    run = harness(tmp_path / "slurm", *SLURM)
    root = tmp_path / "slurm/runs/tiny"
    training = root / "cells/teacher__student/dskd-v2-eta/seed1/train"
    wait_until(lambda: (training / "log.txt").exists(), 600)
    everywhere = ["--partition=urgent", "--nodes=2", "--exclusive"]
    cluster.run("sbatch", *everywhere, "--output=/dev/null", "--wrap=sleep 1")  # takes the place of all that runs
    wait_until(lambda: "again" in _restarts(root), 120)
    finished = done(root)
    run.send_signal(signal.SIGKILL)  # in mid-run; the jobs stay
    run.communicate(timeout=30)
    table = ended(harness(tmp_path / "slurm", *SLURM))
    assert table == here
    expected, found = (outcome_of(tmp_path / name / "runs/tiny") for name in ("here", "slurm"))
    assert found.keys() == expected.keys()
    assert {key for key in found if found[key] != expected[key]} == set()
    assert finished.items() <= done(root).items(), "what was finished is not made again"


def _restarts(root: Path) -> list[str]:
    """How the jobs stand: `again` for one that Slurm has started once more."""
    states = [json.loads(path.read_text()) for path in (root / ".harness/slurm").glob("*/*.state.json")]
    return ["again" if state["restart"] else state["state"] for state in states]

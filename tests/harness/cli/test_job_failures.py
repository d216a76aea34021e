"""Runs on machines with too little memory or disk: the cell fails with a reason and a hint, and what was done stays."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture
def small(tiny: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Supervised training of one student on three lines."""
    rows = [{"prompt": f"Say {k}:", "output": f" it is {k}."} for k in range(3)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny["data"] = {"student": {"file": "data.jsonl"}}
    tiny["models"]["teacher"].pop("training")
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["sft"]}]
    tiny["training"] = {"data": "student", "steps": 2, "batch_size": 2, "max_length": 64}
    tiny |= {"tasks": {}, "evaluation": {"score_teachers": False}}
    return tiny


def run(folder: Path, content: dict[str, Any], *options: str, memory: int | None = None) -> tuple[int, str]:
    """(exit code, standard error) of a run, with at most `memory` bytes of address space for each of its processes."""
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    limit = None if memory is None else lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", "--matrix", "m.yaml", *options],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        timeout=300,
        preexec_fn=limit,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_model_that_does_not_fit_into_memory_fails_alone_with_a_hint(small: dict[str, Any], tmp_path: Path) -> None:
    small["models"]["huge"] = deepcopy(small["models"]["same"])
    small["models"]["huge"]["config"]["intermediate_size"] = 2**28  # three matrices of 32 GiB
    small["pairs"].append({"teacher": "teacher", "student": "huge", "methods": ["sft"]})
    code, stderr = run(tmp_path, small, memory=12 * 2**30)
    assert code == 1
    (failed,) = (line for line in stderr.splitlines() if line.startswith("failed: "))
    assert failed.startswith(
        "failed: model huge: out of memory; fix: fewer jobs at once (--jobs 1), in training: a smaller batch_size"
    )
    assert "not run: train teacher__huge/sft/seed1: needs 'model huge', which failed" in stderr
    assert (tmp_path / "runs/tiny/cells/teacher__same/sft/seed1/train/model/config.json").is_file()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for the small world and not for a model; where nobody may mount one, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_with_a_hint_and_the_same_command_goes_on_once_there_is_room(
    small: dict[str, Any], tmp_path: Path, disk: Path
) -> None:
    code, stderr = run(tmp_path, small, "--output-dir", str(disk))
    assert code == 1
    failed = [line for line in stderr.splitlines() if line.startswith("failed: ")]
    assert failed
    for line in failed:
        assert "the disk is full" in line
        assert "; fix: free some" in line
    assert "Traceback" not in stderr
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    code, stderr = run(tmp_path, small, "--output-dir", str(disk))
    assert code == 0, stderr
    assert (disk / "cells/teacher__same/sft/seed1/train/model/config.json").is_file()

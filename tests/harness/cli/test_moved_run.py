"""A run's folder that was moved while nothing ran, and one that cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.killed_runs import done, start

Harness = Callable[..., subprocess.CompletedProcess[str]]


def files(root: Path) -> dict[str, tuple[int, int]]:
    """Each file's time of change and size; locks are opened by who looks at them."""
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file() and "locks" not in path.parts
    }


@pytest.mark.slow  # two runs
def test_an_interrupted_run_goes_on_where_it_was_moved_to_and_a_finished_one_is_found_done(
    tiny_pair: dict[str, Any], harness: Harness, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_pair))
    first, second, third = tmp_path / "first", tmp_path / "deep/er/second", tmp_path / "third"
    run = start(["run", "--matrix", "tiny.yaml", "--output-dir", str(first)], tmp_path)
    deadline = time.monotonic() + 120
    while len(done(first)) < 4:
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    time.sleep(1)  # its jobs, in sessions of their own, see that it is gone
    made = done(first)
    second.parent.mkdir(parents=True)
    first.rename(second)
    assert done(second) == made
    again = harness("run", "--matrix", "tiny.yaml", "--output-dir", second, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert done(second).items() > made.items()  # nothing was made twice
    assert not first.exists()
    before = files(second)
    second.rename(third)
    last = harness("run", "--matrix", "tiny.yaml", "--output-dir", third, cwd=tmp_path)
    assert last.returncode == 0, last.stderr
    assert last.stdout.replace(str(third), "") == again.stdout.replace(str(second), "")
    assert files(third) == before


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that even root cannot write; where nobody may mount one, its permissions say so."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        folder.chmod(0o500)
        if os.access(folder, os.W_OK):
            pytest.skip("every folder can be written here")
    yield folder
    if mounted.returncode == 0:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("below", ["", "runs/mine"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(
    tiny_pair: dict[str, Any], harness: Harness, read_only: Path, tmp_path: Path, below: str
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_pair))
    run = harness("run", "--matrix", "tiny.yaml", "--output-dir", read_only / below, cwd=tmp_path)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line == f"error: {read_only / below}: {read_only} is not writable; fix: give another path"

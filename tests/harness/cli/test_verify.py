"""`--verify`: what is remembered of model files is compared with the files, by the commands that plan a matrix."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.runs.hash_cache import MIN_BYTES
from helpers.plan_world import write_folders

WriteMatrix = Callable[[Any], Path]
LONG_AGO = 1_600_000_000_000_000_000


@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_matrix: WriteMatrix) -> Path:
    """A matrix of two model folders with weights that are worth remembering."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    folders = write_folders(tmp_path / "folders")
    for name in ("teacher", "student"):
        weights = folders / name / "model.safetensors"
        weights.write_bytes(name.encode().ljust(MIN_BYTES, b"."))
        os.utime(weights, ns=(LONG_AGO, LONG_AGO))
    content = {
        "schema_version": 1,
        "name": "own",
        "data": {"own": {"file": str(folders / "train.jsonl")}},
        "models": {name: {"path": str(folders / name)} for name in ("teacher", "student")},
        "pairs": [{"teacher": "teacher", "student": "student", "methods": ["kd"]}],
        "training": {"data": "own", "steps": 1},
        "seeds": [1],
        "tasks": {},
    }
    return write_matrix(content)


def harness(command: str, matrix: Path, *more: str) -> Result:
    return CliRunner().invoke(main, [command, "--matrix", str(matrix), *more], catch_exceptions=False)


def flip_a_byte(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(MIN_BYTES - 1)
        stream.write(b"!")
    os.utime(path, ns=(LONG_AGO, LONG_AGO))


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_flipped_byte_is_one_line_and_exit_code_2(command: str, matrix: Path, tmp_path: Path) -> None:
    weights = tmp_path / "folders/teacher/model.safetensors"
    before = harness("plan", matrix, "--json")
    assert before.exit_code == 0
    assert harness("plan", matrix, "--json", "--verify").stdout == before.stdout
    assert len([*(tmp_path / "cache/hashes").iterdir()]) == 2
    flip_a_byte(weights)
    assert harness("plan", matrix, "--json").stdout == before.stdout  # the price of remembering
    found = harness(command, matrix, "--verify")
    assert found.exit_code == 2
    (line,) = found.stderr.splitlines()
    assert re.match(
        rf"error: .*models.teacher.path: {weights}: its bytes changed .* \(sha256 was \w+…, is \w+…\)", line
    )
    assert "; fix: " in line
    assert found.stdout == ""
    assert not (tmp_path / "runs").exists()
    # No later command uses a model of which this is known.
    assert harness("plan", matrix).exit_code == 2
    os.utime(weights)
    assert harness("plan", matrix).exit_code == 0


SLOW = """
import sys
from pathlib import Path
from harness.runs import hashing
from harness.runs.identity import FileHashes
hashing._QUIET_SECONDS = -1.0
print(FileHashes().file(Path(sys.argv[1])))
"""


def test_a_slow_file_has_a_bar_on_a_terminal_and_none_elsewhere(matrix: Path, tmp_path: Path) -> None:
    path = tmp_path / "folders/teacher/model.safetensors"
    command = [sys.executable, "-c", SLOW, str(path)]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stderr=theirs, stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
        assert process.stdout is not None
        digest = process.stdout.read()
    os.close(ours)
    assert b"hashing model.safetensors" in shown
    other = {**os.environ, "HARNESS_CACHE": str(tmp_path / "other")}  # where it is not remembered
    piped = subprocess.run(command, capture_output=True, check=True, env=other)
    assert (piped.stdout, piped.stderr) == (digest, b"")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so at the end of a terminal
        return b""

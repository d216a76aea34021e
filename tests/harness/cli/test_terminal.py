"""A terminal that is not in UTF-8 shows what it can, and numbers beyond what libraries take are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from dskd.training.run import train
from harness.cli import main
from harness.cli.output import print_json
from harness.config.matrix_file import read_matrix

TOO_LARGE = 2**32


def in_latin_1(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("what", ["models", "training-options"])
def test_a_table_with_dashes_is_printed_where_there_are_none(what: str) -> None:
    done = in_latin_1("list", what)
    assert done.returncode == 0, done.stderr
    assert b"UnicodeEncodeError" not in done.stderr
    assert len(done.stdout.splitlines()) > 3
    assert b"?" in done.stdout


def test_an_error_about_a_name_that_cannot_be_printed_is_one_line() -> None:
    done = in_latin_1("leaderboard", "--results", "模型")
    assert done.returncode == 2
    (line,) = done.stderr.decode("latin-1").splitlines()
    assert line.startswith("error: ")
    assert "??" in line
    assert "no such folder" in line


@pytest.mark.parametrize(
    ("encoding", "expected"), [("latin-1", b'"Oslo \\u6771\\ud83d\\ude42"'), ("utf-8", "Oslo 東🙂".encode())]
)
def test_json_is_whole_in_any_encoding(
    tmp_path: Path, encoding: str, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "printed"
    with path.open("w", encoding=encoding) as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", stream)
        print_json({"text": "Oslo 東🙂"})
    assert expected in path.read_bytes()
    assert json.loads(path.read_text(encoding=encoding)) == {"text": "Oslo 東🙂"}


# --- seeds ---


@pytest.mark.parametrize("command", ["train", "evaluate", "generate", "init-example"])
def test_a_seed_beyond_32_bits_is_refused_at_once(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--seed", str(TOO_LARGE)])
    assert result.exit_code == 2
    assert f"{TOO_LARGE} is not in the range 0<=x<={TOO_LARGE - 1}" in result.stderr


@pytest.mark.parametrize("place", [("seeds", 0), ("models", "same", "seed"), ("evaluation", "seed")])
def test_a_matrix_with_such_a_seed_is_refused_by_its_key(
    tiny: dict[str, Any], write_matrix: Callable[[Any], Path], place: tuple[Any, ...]
) -> None:
    *way, key = place
    part: Any = tiny
    for name in way:
        part = part[name]
    part[key] = TOO_LARGE - 1
    read_matrix(write_matrix(tiny), {})
    part[key] = TOO_LARGE
    with pytest.raises(InputError, match=rf"matrix\.yaml: {'.'.join(map(str, place))}: .*{TOO_LARGE - 1}"):
        read_matrix(write_matrix(tiny), {})


def test_a_training_from_python_refuses_it_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"seed: 4294967296 is not between 0 and 4294967295; fix: "):
        train(
            data=tmp_path, student=tmp_path, options=TrainingOptions(steps=1), seed=TOO_LARGE, output=tmp_path / "out"
        )

"""Logs of cells: found by parts of names, printed without what acts on a terminal, followed until the work ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.watching.logs import Growing, Printable, tail
from helpers.paths import PYTHONPATH
from helpers.watched_runs import run_watched, running, trainings, until, write_run_file

A, B, C = "t__s/kd/seed1", "t__s/kd/seed10", "t__s/sft/seed1"


@pytest.fixture(autouse=True)
def fake_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)


def command(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["logs", *arguments, "--output-dir", str(root)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", PYTHONPATH)
        write_run_file(root, A, B, C)
        run_watched(root, *trainings(root, {A: "print one", B: "fail", C: "print three"}))
    return root


@pytest.mark.parametrize("asked", [A, f"/{A}/", "kd/seed1", f"{A}/train", "train t__s/kd/seed1"])
def test_a_cell_is_found_by_its_name_its_last_parts_its_job_or_its_title(finished: Path, asked: str) -> None:
    result = command(finished, asked)
    assert result.exit_code == 0, result.output
    assert "doing print one" in result.stdout
    assert f"==> {finished}/cells/{A}/train/log.txt <==" in result.stderr


@pytest.mark.parametrize("asked", ["seed1", "kd", "t__s"])
def test_what_several_have_is_no_name(finished: Path, asked: str) -> None:
    result = command(finished, asked)
    assert result.exit_code == 2
    assert f"error: {asked}: " in result.stderr
    assert "have this in their name" in result.stderr
    assert result.stderr.rstrip().endswith("fix: say more")


def test_an_unknown_name_gets_the_nearest_one(finished: Path) -> None:
    result = command(finished, "t__s/kd/sed1")
    assert result.exit_code == 2
    assert f"no cell or job 't__s/kd/sed1'; did you mean '{A}'?" in result.stderr


def test_the_last_lines_are_printed(finished: Path) -> None:
    result = command(finished, B, "--lines", "2")
    assert result.stdout.splitlines() == ["and more about it", "error: RuntimeError: the reason"]
    assert command(finished, B, "--lines", "0").stdout == ""


def test_a_cell_that_has_not_run_has_no_log(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    for more in ((), ("-f",)):
        result = command(tmp_path, A, *more)
        assert result.exit_code == 2
        assert "has no log, for it has not run yet; fix: " in result.stderr


def test_control_sequences_of_a_models_output_are_left_out(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    log = tmp_path / f"cells/{A}/train/log.txt"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\x1b[31mred\x1b[0m\x07 10%\r 20%\r\nhalf \xe6\x9d\x1b]0;title\x07 [b]x[/b]\nend")
    result = command(tmp_path, A)
    assert result.stdout == "red 10%\n 20%\nhalf \ufffd [b]x[/b]\nend\n"


def follow(root: Path, cell: str) -> subprocess.Popen[str]:
    process = [sys.executable, "-m", "harness.cli", "logs", cell, "-f", "--output-dir", str(root)]
    return subprocess.Popen(process, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_log_is_followed_from_before_its_job_starts_until_it_has_ended(tmp_path: Path) -> None:
    write_run_file(tmp_path, A, C)
    with running(tmp_path, {A: "wait", C: "print last"}, jobs=1) as process:
        until(lambda: (tmp_path / f"cells/{A}/train/part").exists())
        with follow(tmp_path, C) as follower:
            assert follower.stderr is not None
            assert "has not started yet" in follower.stderr.readline()
            (tmp_path / "gate").touch()
            out, _ = follower.communicate(timeout=120)
        assert follower.returncode == 0
        assert "doing print last" in out
        assert process.wait(60) == 0


def test_following_ends_when_the_harness_is_killed(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    with running(tmp_path, {A: "wait"}) as process:
        until(lambda: (tmp_path / f"cells/{A}/train/part").exists())
        with follow(tmp_path, A) as follower:
            assert follower.stdout is not None
            assert "doing wait" in follower.stdout.readline()
            process.kill()
            follower.communicate(timeout=120)
        assert follower.returncode == 0


def test_a_log_that_is_cut_or_replaced_is_read_anew(tmp_path: Path) -> None:
    log, growing = tmp_path / "log.txt", Growing()

    def new() -> bytes:
        return b"".join(content for _, content in growing.new([log]))

    assert new() == b""
    log.write_bytes(b"one\n")
    assert new() == b"one\n"
    with log.open("ab") as stream:
        stream.write(b"two\n")
    assert new() == b"two\n"
    log.write_bytes(b"cut\n")
    assert new() == b"cut\n"
    other = tmp_path / "other"
    other.write_bytes(b"another file of more bytes\n")
    other.replace(log)
    assert new() == b"another file of more bytes\n"
    log.unlink()
    assert new() == b""


def test_a_line_is_only_shown_whole_whatever_parts_it_comes_in() -> None:
    text, shown = "one \x1b[31mred\x1b[0m 東京\ntwo\n", Printable()
    parts = [shown.feed(bytes([byte])) for byte in text.encode()]
    assert "".join(parts) == "one red 東京\ntwo\n"
    assert sum(map(bool, parts)) == 2
    assert shown.feed(b"rest") == ""
    assert shown.rest() == "rest\n"
    assert len(Printable().feed(b"x" * 70_000)) == 70_000


@pytest.mark.parametrize("lines", [0, 1, 3, 5000, 10**6])
def test_the_tail_of_a_large_file(tmp_path: Path, lines: int) -> None:
    path = tmp_path / "log"
    written = [f"line {k} {'x' * (k % 300)}\n" for k in range(10_000)]
    path.write_text("".join(written))
    content, end = tail(path, lines)
    assert content.decode() == "".join(written[-lines:] if lines else [])
    assert end == path.stat().st_size

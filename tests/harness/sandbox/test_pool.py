"""Many programs at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Any

import psutil
import pytest

from harness.sandbox import Execution, Limits, Program, pool, run_programs
from harness.sandbox.isolation import Isolation


def test_they_keep_their_order_and_tell_their_progress(isolation: Isolation) -> None:
    done: list[int] = []
    programs = [Program(source) for source in ("assert True", "assert False", "1 / 0", "assert True")]
    ended = run_programs(programs, limits=Limits(seconds=20), advance=lambda: done.append(1))
    assert [one.outcome for one in ended] == ["passed", "failed", "exception", "passed"]
    assert len(done) == 4


def test_as_many_run_at_once_as_there_are_cores(isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    together, at_once, most = threading.Barrier(4), 0, 0
    real, lock = pool.run, threading.Lock()

    def counted(*arguments: Any) -> Execution:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        together.wait(60)  # for four that are here at once; an error if fewer ever are
        try:
            return real(*arguments)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(pool, "cores", lambda: 4)
    monkeypatch.setattr(pool, "run", counted)
    ended = run_programs([Program("x = 1")] * 8, limits=Limits(seconds=20))
    assert [one.outcome for one in ended] == ["passed"] * 8
    assert most == 4


def test_one_that_others_kept_from_the_processor_is_run_once_more(
    isolation: Isolation, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []
    real = pool.run

    def busy(program: Program, *arguments: object) -> Execution:
        runs.append(program.source)
        ended = real(program, *arguments)  # type: ignore[arg-type]
        return (
            replace(ended, outcome="timeout", starved=True)
            if runs.count("x = 1") == 1 and program.source == "x = 1"
            else ended
        )

    monkeypatch.setattr(pool, "run", busy)
    done: list[int] = []
    ended = run_programs(
        [Program("x = 1"), Program("x = 2")], limits=Limits(seconds=20), advance=lambda: done.append(1)
    )
    assert [one.outcome for one in ended] == ["passed", "passed"]
    assert sorted(runs) == ["x = 1", "x = 1", "x = 2"]
    assert len(done) == 2


def test_a_program_starved_by_others_is_known_by_its_waiting(isolation: Isolation) -> None:
    # Four for every core; in sessions of their own, as the kernel may share processors among sessions.
    hog = [sys.executable, "-S", "-c", "while True: pass"]
    hogs = [subprocess.Popen(hog, start_new_session=True) for _ in range(4 * (os.cpu_count() or 1))]
    try:
        ended = pool.run(Program("while True: pass"), isolation, Limits(seconds=2.0))
    finally:
        for process in hogs:
            process.kill()
            process.wait()
    assert (ended.outcome, ended.starved) == ("timeout", True)


def test_an_interrupt_ends_what_runs_and_leaves_no_process(isolation: Isolation) -> None:
    marker = f"marks-what-an-interrupt-left-{os.getpid()}"
    source = f"""
from harness.sandbox import Limits, Program, run_programs
program = Program("import os, sys; os.execv(sys.executable, [sys.executable, '-c', 'while True: pass', {marker!r}])")
try:
    run_programs([program] * 50, limits=Limits(seconds=500))
except KeyboardInterrupt:
    print("interrupted")
"""
    harness = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        # A suite that a shell started in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 20
        while not _marked(marker):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        harness.send_signal(signal.SIGINT)
        assert harness.communicate(timeout=30)[0] == b"interrupted\n"
        assert not _marked(marker)
    finally:
        harness.kill()


def _marked(marker: str) -> list[int]:
    return [p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[-1] == marker]

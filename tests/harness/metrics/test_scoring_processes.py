"""Processes that score hostile text: in order, within limits, each for itself, and gone with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.metrics.sample import SampleScore
from harness.metrics.scoring_processes import Failed, run_in_processes, score_in_processes
from helpers.paths import ROOT, TESTS
from helpers.scoring_functions import attempt, length, misbehave, scored

REFUSED = [
    "write",
    "append",
    "create",
    "remove",
    "rename",
    "mkdir",
    "system",
    "popen",
    "exec",
    "spawn",
    "fork",
    "socket",
    "ctypes",
    "kill",
]


def nothing() -> None:
    pass


def children() -> list[psutil.Process]:
    alive = [each for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    return [each for each in alive if "scoring_worker" in " ".join(each.cmdline())]


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_results_are_in_order_and_each_is_announced() -> None:
    items = ["x" * number for number in range(200)]
    done: list[None] = []
    assert run_in_processes(length, items, lambda: done.append(None), workers=3) == list(range(200))
    assert len(done) == 200


def test_no_item_starts_no_process() -> None:
    before = children()
    assert run_in_processes(length, [], nothing) == []
    assert children() == before


def test_any_text_reaches_the_function() -> None:
    texts = ["\x00", "\udc00", "\N{GRINNING FACE}", "\n", "x" * 10_000_000, ""]
    assert run_in_processes(length, texts, nothing) == [len(text) for text in texts]


def test_an_item_over_its_limits_takes_no_other_with_it() -> None:
    how = ["spin", "fine", "number", "memory", "exit", "raise five", "recurse", *["fine"] * 20]
    results = run_in_processes(misbehave, how, nothing, seconds=0.5, workers=2)
    outcomes = [result.outcome if isinstance(result, Failed) else result for result in results]
    assert outcomes[:7] == ["timeout", 4, "timeout", "memory", "killed", "harness_error", "harness_error"]
    assert outcomes[7:] == [4] * 20
    details = {result.detail for result in results if isinstance(result, Failed)}
    assert "not scored within 0.5 seconds of the processor" in details
    assert "it takes more than 1 GiB of memory" in details
    assert "ValueError: not five\\udc00" in details


def test_what_only_waits_ends_as_well() -> None:
    (result,) = run_in_processes(misbehave, ["sleep"], nothing, seconds=0.2)
    assert result.outcome == "timeout"


@pytest.mark.parametrize("how", REFUSED)
def test_what_scoring_never_does_ends_the_process(how: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.with_suffix(".kept").write_text("kept")
    (result,) = run_in_processes(attempt, [f"{how} {path}"], nothing)
    assert (result.outcome, result.detail.partition(":")[0]) == ("refused", "it led to what scoring never does")
    assert not path.exists()
    assert path.with_suffix(".kept").read_text() == "kept"


def test_scores_come_back_whole_and_a_failed_item_is_wrong_but_an_error_of_ours_is_not() -> None:
    assert score_in_processes(scored, ["yes", "no"], nothing, metrics=["accuracy"]) == [scored("yes"), scored("no")]
    late, error = score_in_processes(misbehave, ["spin", "raise it"], nothing, metrics=["accuracy"], seconds=0.2)
    assert late == SampleScore({"accuracy": 0.0}, {"accuracy": None}, "timeout")
    assert error == SampleScore({"accuracy": None}, {"accuracy": None}, "harness_error")
    assert "ValueError" in error.detail


def test_an_idle_process_is_used_again() -> None:
    run_in_processes(length, ["a"], nothing, seconds=7)
    before = {process.pid for process in children()}
    run_in_processes(length, ["b"], nothing, seconds=7)
    assert {process.pid for process in children()} == before


def test_an_interrupt_ends_all_processes() -> None:
    before = {process.pid for process in children()}
    interrupted = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        interrupted.start()
        with pytest.raises(KeyboardInterrupt):
            run_in_processes(misbehave, ["spin"] * 8, nothing, seconds=60, workers=2)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert {process.pid for process in children()} <= before


# The clock of the kernel ends one within an operation that lasts.
@pytest.mark.parametrize("how", ["spin", pytest.param("number", marks=pytest.mark.slow)])
def test_processes_end_with_a_parent_that_is_killed(how: str) -> None:
    program = (
        "from harness.metrics.scoring_processes import run_in_processes\n"
        "from helpers.scoring_functions import misbehave\n"
        f"run_in_processes(misbehave, ['{how}'] * 2, lambda: None, seconds=3, workers=2)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(TESTS)])}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        workers: list[psutil.Process] = []

        def both_at_work() -> bool:
            workers[:] = psutil.Process(parent.pid).children()
            return len(workers) == 2 and all(sum(worker.cpu_times()[:2]) > 1 for worker in workers)

        wait_for(both_at_work)
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: all(gone(worker) for worker in workers))

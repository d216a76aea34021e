"""Jobs of several machines in one folder: real processes of `python -m harness.jobs`, suspended and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.jobs.inputs import wait_for_inputs
from harness.runs.job_spec import MAY_PASS, STOPPED
from harness.runs.late_files import NotSeen
from harness.runs.leases import SECONDS
from harness.runs.store import Store
from harness.steps.base import Step
from harness.steps.ranking import Candidate, Ranking
from harness.steps.reference import Reference
from helpers.executor_runs import fake, planned
from helpers.fake_jobs import FakeStep
from helpers.paths import PYTHONPATH

Start = Callable[..., subprocess.Popen[bytes]]
FOLDER = "cells/long"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the last job of a step's closure, as another machine would; each has a log of its own, `0.log` the first."""
    started: list[subprocess.Popen[bytes]] = []

    def start(step: FakeStep, **changes: Any) -> subprocess.Popen[bytes]:
        job = planned(tmp_path / "run", step)[-1]
        spec = job.spec(shared_disk=True).model_copy(update=changes)
        path = tmp_path / f"{len(started)}.json"
        path.write_text(spec.model_dump_json())
        with (tmp_path / f"{len(started)}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "harness.jobs", str(path)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", SECONDS: "1.5"},
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def until(condition: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.fixture
def long(tmp_path: Path) -> FakeStep:
    """A job that writes its process's number into `part`, waits for the file `go`, and ends with `part` as its product."""
    return fake(tmp_path, "long", "wait", until=tmp_path / "go")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_suspended_job_is_taken_over_and_writes_nothing_when_it_wakes_up(
    start: Start, long: FakeStep, tmp_path: Path
) -> None:
    part = tmp_path / "run" / FOLDER / "part"
    first = start(long)
    until(lambda: text(part) == str(first.pid))
    first.send_signal(signal.SIGSTOP)
    second = start(long)
    until(lambda: text(part) == str(second.pid))
    assert f"waiting: another run is doing this job (process {first.pid} on " in text(tmp_path / "1.log")
    (tmp_path / "go").touch()
    assert second.wait(20) == 0
    before = contents(tmp_path / "run")
    first.send_signal(signal.SIGCONT)
    assert first.wait(10) == -signal.SIGKILL
    assert contents(tmp_path / "run") == before
    assert Store(tmp_path / "run").output(FOLDER).holds(long.outputs[0].made)


def test_a_killed_job_is_taken_over(start: Start, long: FakeStep, tmp_path: Path) -> None:
    part = tmp_path / "run" / FOLDER / "part"
    first = start(long)
    until(lambda: text(part))
    first.kill()
    (tmp_path / "go").touch()
    assert start(long).wait(30) == 0


@pytest.mark.parametrize("shared", [(True, True), (True, False), (False, True)])
def test_two_at_once_do_it_once_whether_they_share_the_disk_with_other_machines_or_not(
    start: Start, long: FakeStep, tmp_path: Path, shared: tuple[bool, bool]
) -> None:
    first = start(long, shared_disk=shared[0])
    until(lambda: text(tmp_path / "run" / FOLDER / "part"))
    second = start(long, shared_disk=shared[1], fresh=True)
    until(lambda: "waiting: another run is doing this job" in text(tmp_path / "1.log"))
    time.sleep(3)  # twice as long as a silent holder lives
    assert (first.poll(), second.poll()) == (None, None)
    (tmp_path / "go").touch()
    assert (first.wait(20), second.wait(20)) == (0, 0)
    assert "nothing to do: another run has done it" in text(tmp_path / "1.log")
    assert (tmp_path / "journal").read_text().split() == ["long"]


def test_a_local_job_waits_for_one_on_another_machine_whose_locks_it_does_not_see(
    start: Start, long: FakeStep, tmp_path: Path
) -> None:
    lease = tmp_path / "run/.harness/leases/cells+long/1"
    lease.parent.mkdir(parents=True)
    lease.write_text('{"owner": "x", "host": "far", "pid": 7, "boot": "x", "seconds": 600, "beat": 1, "state": "held"}')
    (tmp_path / "go").touch()
    job = start(long, shared_disk=False)
    until(lambda: "waiting: another run is doing this job (process 7 on far)" in text(tmp_path / "0.log"))
    time.sleep(1)
    assert job.poll() is None
    lease.write_text('{"state": "released"}')
    assert job.wait(20) == 0


@pytest.mark.parametrize("shared", [True, False])
def test_a_job_that_waits_for_another_run_can_be_stopped(
    start: Start, long: FakeStep, tmp_path: Path, shared: bool
) -> None:
    first = start(long, shared_disk=shared)
    until(lambda: text(tmp_path / "run" / FOLDER / "part"))
    second = start(long, shared_disk=shared)
    until(lambda: "waiting: another run is doing this job" in text(tmp_path / "1.log"))
    second.terminate()
    assert second.wait(10) == STOPPED
    (tmp_path / "go").touch()
    assert first.wait(20) == 0


def test_a_local_run_leaves_no_lease(start: Start, tmp_path: Path) -> None:
    assert start(fake(tmp_path, "first"), shared_disk=False).wait(30) == 0
    assert not (tmp_path / "run/.harness/leases").exists()


def test_what_another_machine_has_made_is_waited_for(start: Start, tmp_path: Path) -> None:
    first = fake(tmp_path, "first")
    assert start(first).wait(30) == 0
    made, late = tmp_path / "run/cells/first", tmp_path / "late"
    made.rename(late)
    second = start(fake(tmp_path, "second", after=(first,)))
    until(lambda: f"waiting: {made} is not seen as finished on this machine yet" in text(tmp_path / "1.log"))
    assert second.poll() is None
    assert not (tmp_path / "run/cells/second").exists()
    late.rename(made)
    assert second.wait(20) == 0


def test_what_never_appears_is_told_with_its_place_and_another_try_may_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = fake(tmp_path, "second", after=(fake(tmp_path, "first"),))
    with pytest.raises(match=r"cells/first: not seen as finished on \S+ after 1 s; fix: let all machines"):
        wait_for_inputs(Store(tmp_path / "run", shared_disk=True), second, seconds=1)


@pytest.mark.parametrize("nested", [True, False])
def test_so_is_what_a_job_reads_by_reference(tmp_path: Path, nested: bool) -> None:
    """The job is told of no step behind a reference, only of the folders."""
    to = Reference.to(fake(tmp_path, "first"))
    ranking = Ranking(
        rung=0,
        share=1.0,
        keep=1,
        candidates=[Candidate(scores=to, outputs={}, training="")] if nested else [],
        earlier=None if nested else to,
    )
    told = Step.model_validate_json(ranking.model_dump_json())
    with pytest.raises(NotSeen, match=r"cells/first: not seen as finished on \S+ after 1 s; fix: let all machines"):
        wait_for_inputs(Store(tmp_path / "run", shared_disk=True), told, seconds=1)


def test_a_job_without_its_input_is_tried_again(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import harness.jobs.inputs\nharness.jobs.inputs.wait_for_inputs.__defaults__ = (1.0,)\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "PYTHONPATH", f"{tmp_path}{os.pathsep}{PYTHONPATH}")
    job = start(fake(tmp_path, "second", after=(fake(tmp_path, "first"),)))
    assert job.wait(30) == MAY_PASS
    assert "error: " in text(tmp_path / "0.log")
    assert not (tmp_path / "run/cells/second").exists()

"""The state that a job keeps on the disk, by real jobs and by what writes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.executors.local import Executor
from harness.runs import job_state
from harness.runs.job_context import ProgressChannel
from harness.runs.job_spec import DONE
from harness.runs.job_state import JobState, StateWriter
from harness.runs.store import Store
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
from harness.steps.base import Step
from helpers.executor_runs import Recorder, fake, planned
from helpers.paths import PYTHONPATH


def run(root: Path, *steps: Step) -> None:
    Runner(Executor(Settings(root)), Recorder(), jobs=2, tries=1).run(planned(root, *steps))


def start(root: Path, step: Step) -> subprocess.Popen[bytes]:
    """A job as a queue starts it: nobody listens."""
    (job,) = planned(root, step)
    spec = Store(root).write_spec(job.id, job.spec(attempt=3).model_dump_json())
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "2,3"}
    return subprocess.Popen([sys.executable, "-m", "harness.jobs", str(spec)], env=environment)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def state_of(root: Path, job: str) -> str:
    state = JobState.read(root, job)
    return "none" if state is None else state.state


@pytest.fixture(autouse=True)
def fake_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)


def test_a_done_job_and_a_failed_one_say_how_they_ended(tmp_path: Path) -> None:
    run(tmp_path, fake(tmp_path, "good/a:b"), fake(tmp_path, "bad", "fail"))
    assert (tmp_path / ".harness/jobs/good+a+b/state.json").is_file()
    good, bad = JobState.read(tmp_path, "good/a:b"), JobState.read(tmp_path, "bad")
    assert good is not None
    assert (good.job, good.state, good.attempt, good.stage, good.done, good.total) == (
        "good/a:b",
        "done",
        1,
        "steps",
        3,
        3,
    )
    assert good.memory is not None
    assert good.memory > 2**20
    assert good.host
    assert bad is not None
    assert (bad.state, bad.reason) == ("failed", "RuntimeError: the reason")


def test_a_job_that_nobody_listens_to_is_known_by_its_file_while_it_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with start(tmp_path, fake(tmp_path, "slow", "wait", until=gate)) as process:
        until(lambda: state_of(tmp_path, "slow") == "running")
        state = JobState.read(tmp_path, "slow")
        assert state is not None
        assert (state.pid, state.attempt, state.devices) == (process.pid, 3, "2,3")
        gate.touch()
        assert process.wait(60) == DONE
    assert state_of(tmp_path, "slow") == "done"


def test_a_second_process_of_the_same_job_leaves_the_state_to_the_first(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    step = fake(tmp_path, "slow", "wait", until=gate)
    with start(tmp_path, step) as first:
        until(lambda: state_of(tmp_path, "slow") == "running")
        log = tmp_path / "log"
        (job,) = planned(tmp_path, step)
        spec = Store(tmp_path).write_spec("other", job.spec().model_dump_json())
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (
            log.open("wb") as stream,
            subprocess.Popen(
                [sys.executable, "-m", "harness.jobs", str(spec)], env=environment, stdout=stream
            ) as second,
        ):
            until(lambda: b"waiting" in log.read_bytes())
            state = JobState.read(tmp_path, "slow")
            assert state is not None
            assert (state.state, state.pid) == ("running", first.pid)
            gate.touch()
            assert second.wait(60) == DONE
        assert first.wait(60) == DONE
    assert state_of(tmp_path, "slow") == "done"


def test_the_state_of_a_killed_job_stays_until_the_next_try(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    step = fake(tmp_path, "slow", "wait", until=gate)
    with start(tmp_path, step) as process:
        until(lambda: state_of(tmp_path, "slow") == "running")
        process.send_signal(signal.SIGKILL)
        process.wait(60)
    assert state_of(tmp_path, "slow") == "running"
    gate.touch()
    (tmp_path / ".harness/jobs/slow/.state.json.killed.1").touch()  # as if it was killed while it wrote
    run(tmp_path, step)
    state = JobState.read(tmp_path, "slow")
    assert state is not None
    assert (state.state, state.attempt) == ("done", 1)
    assert [path.name for path in (tmp_path / ".harness/jobs/slow").iterdir()] == ["state.json"]


def test_a_job_that_another_run_has_done_is_done(tmp_path: Path) -> None:
    step = fake(tmp_path, "first")
    run(tmp_path, step)
    path = JobState.path(tmp_path, "first")
    path.write_text(
        json.dumps({"job": "first", "state": "running", "pid": 1})
    )  # of one that was killed at its very end
    run(tmp_path, step)
    assert state_of(tmp_path, "first") == "done"


def test_what_changes_is_written_by_itself_and_events_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_state, "NEWS", 0.3)
    writer = StateWriter(tmp_path, "a", 1)
    writer.running()
    channel = ProgressChannel(writer)
    for step in range(1000):
        channel.advance("training", step, 1000)
        channel.measure(loss=1.0 / (step + 1), grad_norm=float("nan"), name="x")

    def written() -> bool:
        state = JobState.read(tmp_path, "a")
        return state is not None and state.done == 999

    until(written)
    state = JobState.read(tmp_path, "a")
    assert state is not None
    assert state.metrics == {"loss": pytest.approx(0.001)}
    assert 3 <= state.beat <= 50  # starting, running, and what a thread wrote; not one for each event
    writer.ended("done")
    writer.progress("late", 1, 1)
    time.sleep(0.5)
    assert state_of(tmp_path, "a") == "done"


def test_a_quiet_job_still_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_state, "NEWS", 0.05)
    monkeypatch.setattr(job_state, "BEAT", 0.1)
    writer = StateWriter(tmp_path, "a", 1)
    writer.running()

    def beats() -> int:
        state = JobState.read(tmp_path, "a")
        return 0 if state is None else state.beat

    until(lambda: beats() >= 5)
    writer.ended("stopped", reason="was asked to")
    assert state_of(tmp_path, "a") == "stopped"


def test_a_state_that_cannot_be_written_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / ".harness").write_text("a file in its place")
    writer = StateWriter(tmp_path, "a", 1)
    writer.running()
    writer.progress("half \ud800 a pair", 1, 2)
    writer.ended("failed", reason="half \ud800 a pair")
    assert JobState.read(tmp_path, "a") is None
    (tmp_path / ".harness").unlink()
    again = StateWriter(tmp_path, "a", 2)
    again.progress("half \ud800 a pair", 1, 2)
    again.ended("failed", reason="half \ud800 a pair")
    state = JobState.read(tmp_path, "a")
    assert state is not None
    assert (state.reason, state.stage) == ("half ? a pair", "half ? a pair")


def test_a_torn_state_is_none(tmp_path: Path) -> None:
    path = JobState.path(tmp_path, "a")
    path.parent.mkdir(parents=True)
    path.write_text('{"job": "a", "sta')
    assert JobState.read(tmp_path, "a") is None

"""How a job's process ends: its exit code, what it says of a failure, and what it does when it is asked to stop."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness.runs.job_spec import DONE, FAILED, MAY_PASS, MISTAKE, STOPPED
from harness.runs.store import Store
from helpers.executor_runs import fake
from helpers.job_processes import JobProcess


@pytest.mark.parametrize(
    ("do", "code", "kind", "retry"),
    [
        ("fail", MAY_PASS, "", True),
        ("lose a server once", MAY_PASS, "", True),
        ("training failed", FAILED, "", False),
        ("input error", MISTAKE, "", False),
        ("take all memory", FAILED, "out_of_memory", False),
    ],
)
def test_a_job_says_whether_another_try_may_pass(tmp_path: Path, do: str, code: int, kind: str, retry: bool) -> None:
    job = JobProcess(tmp_path, fake(tmp_path, "job", do))
    assert job.wait() == code
    failed = job.events()[-1]
    assert (failed["event"], failed["kind"], failed["retry"]) == ("failed", kind, retry)
    assert failed["reason"]
    assert Store(tmp_path).output("cells/job").state()[0] == "failed"


def test_the_next_try_goes_on_from_what_the_one_before_left_even_where_all_was_to_be_made_again(tmp_path: Path) -> None:
    step = fake(tmp_path, "job", "lose a server once")
    assert JobProcess(tmp_path, step, fresh=True).wait() == MAY_PASS
    assert JobProcess(tmp_path, step, fresh=True, attempt=2).wait() == DONE
    assert (tmp_path / "cells/job/product").read_text() == "kept"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_that_is_asked_to_stop_does_so_at_its_checkpoint_and_goes_on_from_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    step, part = fake(tmp_path, "job", "stop at a checkpoint"), tmp_path / "cells/job/part"
    job = JobProcess(tmp_path, step)
    job.until(part.exists)
    os.killpg(job.process.pid, number)
    assert job.wait() == STOPPED
    assert "stopped at step 3 after its checkpoint, because it was asked to" in job.log.read_text()
    assert [event["event"] for event in job.events()] == ["started"]
    assert Store(tmp_path).output("cells/job").state()[0] == "interrupted"
    assert JobProcess(tmp_path, step).wait() == DONE
    assert (tmp_path / "cells/job/product").read_text() == "kept"


def test_what_fails_because_it_was_to_stop_is_no_failure(tmp_path: Path) -> None:
    job = JobProcess(tmp_path, fake(tmp_path, "job", "fail once it is asked to stop"))
    job.until((tmp_path / "cells/job/part").exists)
    job.process.terminate()
    assert job.wait() == STOPPED
    assert Store(tmp_path).output("cells/job").state()[0] == "interrupted"


def test_a_second_sigterm_ends_a_job_at_once(tmp_path: Path) -> None:
    job = JobProcess(tmp_path, fake(tmp_path, "job", "never stop"))
    job.until((tmp_path / "cells/job/part").exists)
    job.process.terminate()
    job.until(lambda: _handled(job.process.pid, signal.SIGTERM) is False)
    job.process.terminate()
    assert job.wait(20) == -signal.SIGTERM


def test_a_job_that_waits_for_another_run_can_be_stopped(tmp_path: Path) -> None:
    step = fake(tmp_path, "job")
    with Store(tmp_path).lock(step.folder):
        job = JobProcess(tmp_path, step)
        job.until(lambda: "waiting: another run" in job.log.read_text())
        job.process.terminate()
        assert job.wait(20) == STOPPED


def _handled(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (number - 1) & 1)

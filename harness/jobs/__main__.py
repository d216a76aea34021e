"""One job in its own process: `python -m harness.jobs SPEC.json`.

Exit codes: 0 done (or found done), 1 failed, 2 failed because of what the user gave, 3 failed and another try may pass, 75 stopped.

SIGTERM and SIGUSR1 ask the job to stop: it does so once what it has finished is on the disk, and can go on from there. A second
SIGTERM ends it at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from filelock import Timeout
from pydantic import ValidationError

from dskd.errors import InputError, Stopped
from dskd.processes import StopRequest, exit_with_parent
from harness.runs.failures import exit_code_of, kind_of, reason_of
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import DONE, MAY_PASS, MISTAKE, PARENT_DESCRIPTOR, STOPPED, JobSpec
from harness.runs.store import Store
from harness.steps.base import Step

_ASK_SECONDS = 0.5  # between two looks at whether a job that waits is to stop


def main(spec_path: str) -> int:
    """Run the job of a specification file. Its exit code."""
    stop = StopRequest()
    if text := os.environ.pop(PARENT_DESCRIPTOR, None):
        # This process and its children end when the run that started it dies.
        os.set_inheritable(int(text), False)
        exit_with_parent(descriptor=int(text), kill_group=True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("dskd").setLevel(logging.INFO)  # a download is told in the log
    spec = JobSpec.model_validate_json(Path(spec_path).read_text(encoding="utf-8"))
    progress = ProgressChannel()
    try:
        return _run(spec, Step.model_validate(spec.step), progress, stop)
    except ValidationError as error:  # the class of the step is gone or has other fields by now
        return _fail(InputError(error.errors()[0]["msg"].removeprefix("Value error, ")), progress, None)
    except (OSError, InputError) as error:
        return _fail(error, progress, None)


def _run(spec: JobSpec, step: Step, progress: ProgressChannel, stop: StopRequest) -> int:
    """Run a step once no other run is doing it."""
    # A later try goes on from what the one before it has made.
    store, fresh = Store(Path(spec.root)), spec.fresh and spec.attempt == 1
    lock = store.lock(step.folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("waiting: another run is doing this job", flush=True)
        progress.send(event="waiting")
        if not _wait_for(lock, stop):
            return _stop(Stopped(where="while another run was doing this job"))
        fresh = False  # the other run has just made it
    with lock:
        wanted = [output for output in step.outputs if output.folder in spec.outputs]
        pending = [output for output in wanted if fresh or not store.output(output.folder).holds(output)]
        if not pending:
            print("nothing to do: another run has done it", flush=True)
            return DONE
        for output in pending:
            store.output(output.folder).begin(step.kind, step.title, output.fingerprint, fresh=fresh)
        progress.send(event="started")
        told: dict[str, Any] = {"stop": stop, "attempt": spec.attempt, "split_batches": spec.split_batches}
        job = JobContext(store.root, step.folder, pending, progress, **told)
        try:
            job.stop_here("before it began")
            step.run(job)
            if job.pending:
                raise RuntimeError(f"{step.id} ended without finishing {', '.join(o.folder for o in job.pending)}")
        except Stopped as stopped:
            return _stop(stopped)
        except Exception as error:
            # What it started was asked to stop, too, and what failed then may have failed for that.
            if stop() and not isinstance(error, InputError):
                traceback.print_exc()
                return _stop(Stopped(where="before it was done"))
            return _fail(error, progress, job)
    return DONE


def _wait_for(lock: Any, stop: StopRequest) -> bool:
    """Wait until the lock is ours; False where the job is asked to stop before that."""
    while not stop():
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=_ASK_SECONDS)
            return True
    return False


def _stop(stopped: Stopped) -> int:
    """The exit code of a job that was asked to stop; its outputs stay as they are, to go on from."""
    print(str(stopped), flush=True)
    return STOPPED


def _fail(error: Exception, progress: ProgressChannel, job: JobContext | None) -> int:
    """The exit code of a job that failed, its reason reported.

    The reason goes to whoever started the job first, and then into log, record and manifest: a full disk may have no room for them.
    """
    reason = reason_of(error)
    code = exit_code_of(error)
    progress.send(event="failed", reason=reason, kind=kind_of(error), retry=code == MAY_PASS)
    mistake = code == MISTAKE
    with contextlib.suppress(OSError):
        if not mistake:
            traceback.print_exc()
        print(f"error: {reason}", file=sys.stderr, flush=True)
    if job is not None:
        with contextlib.suppress(OSError):
            job.fail(reason)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

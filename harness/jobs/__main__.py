"""One job in its own process: `python -m harness.jobs SPEC.json`.

Exit codes: 0 done (or found done), 1 failed, 2 failed because of what the user gave.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
from pathlib import Path

from filelock import Timeout
from pydantic import ValidationError

from dskd.errors import InputError
from dskd.processes import exit_with_parent
from harness.runs.failures import reason_of
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import FAILED, MISTAKE, PARENT_DESCRIPTOR, JobSpec
from harness.runs.store import Store
from harness.steps.base import Step


def main(spec_path: str) -> int:
    """Run the job of a specification file."""
    if text := os.environ.pop(PARENT_DESCRIPTOR, None):
        # This process and its children end when the run that started it dies.
        os.set_inheritable(int(text), False)
        exit_with_parent(descriptor=int(text), kill_group=True)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("dskd").setLevel(logging.INFO)  # a download is told in the log
    spec = JobSpec.model_validate_json(Path(spec_path).read_text(encoding="utf-8"))
    progress = ProgressChannel()
    try:
        return _run(spec, Step.model_validate(spec.step), progress)
    except ValidationError as error:  # the class of the step is gone or has other fields by now
        return _fail(InputError(error.errors()[0]["msg"].removeprefix("Value error, ")), progress, None)
    except (OSError, InputError) as error:
        return _fail(error, progress, None)


def _run(spec: JobSpec, step: Step, progress: ProgressChannel) -> int:
    """Run a step once no other run is doing it."""
    store, fresh = Store(Path(spec.root)), spec.fresh
    lock = store.lock(step.folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("waiting: another run is doing this job", flush=True)
        progress.send(event="waiting")
        lock.acquire()
        fresh = False  # the other run has just made it
    with lock:
        wanted = [output for output in step.outputs if output.folder in spec.outputs]
        pending = [output for output in wanted if fresh or not store.output(output.folder).holds(output)]
        if not pending:
            print("nothing to do: another run has done it", flush=True)
            return 0
        for output in pending:
            store.output(output.folder).begin(step.kind, step.title, output.fingerprint, fresh=fresh)
        progress.send(event="started")
        job = JobContext(store.root, step.folder, pending, progress)
        try:
            step.run(job)
            if job.pending:
                raise RuntimeError(f"{step.id} ended without finishing {', '.join(o.folder for o in job.pending)}")
        except Exception as error:
            return _fail(error, progress, job)
    return 0


def _fail(error: Exception, progress: ProgressChannel, job: JobContext | None) -> int:
    """The exit code of a job that failed, its reason reported.

    The reason goes to whoever started the job first, and then into log, record and manifest: a full disk may have no room for them.
    """
    reason = reason_of(error)
    progress.send(event="failed", reason=reason)
    mistake = isinstance(error, InputError)
    with contextlib.suppress(OSError):
        if not mistake:
            traceback.print_exc()
        print(f"error: {reason}", file=sys.stderr, flush=True)
    if job is not None:
        with contextlib.suppress(OSError):
            job.fail(reason)
    return MISTAKE if mistake else FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

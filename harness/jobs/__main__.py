"""One job in its own process: `python -m harness.jobs SPEC.json`.

Exit codes: 0 done (or found done), 1 failed, 2 failed because of what the user gave.
"""

from __future__ import annotations

import contextlib
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
from harness.runs.job_spec import PARENT_DESCRIPTOR, JobSpec, Output
from harness.runs.store import Store
from harness.steps.base import Step


def main(spec_path: str) -> int:
    """Run the job of a specification file."""
    _die_with_parent()
    spec = JobSpec.model_validate_json(Path(spec_path).read_text(encoding="utf-8"))
    progress = ProgressChannel()
    try:
        return _alone(spec, _step_of(spec), progress)
    except (OSError, InputError) as error:
        return _fail(error, progress, None)


def _step_of(spec: JobSpec) -> Step:
    """The step of a specification. InputError where its class is gone or has other fields by now."""
    try:
        return Step.model_validate(spec.step)
    except ValidationError as error:
        raise InputError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _alone(spec: JobSpec, step: Step, progress: ProgressChannel) -> int:
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
        pending = [output for output in wanted if fresh or not _is_done(store, output)]
        if not pending:
            print("nothing to do: another run has done it", flush=True)
            return 0
        return _run(step, store, pending, progress, fresh=fresh)


def _is_done(store: Store, output: Output) -> bool:
    folder = store.output(output.folder)
    state, manifest = folder.state()
    if state != "done" or manifest is None or manifest.identity.hash != output.fingerprint.hash:
        return False
    return output.product is None or (folder.path / output.product).exists()


def _run(step: Step, store: Store, pending: list[Output], progress: ProgressChannel, *, fresh: bool) -> int:
    try:
        for output in pending:
            store.output(output.folder).begin(step.kind, step.title, output.fingerprint, fresh=fresh)
    except InputError as error:
        return _fail(error, progress, None)
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
    return 2 if mistake else 1


def _die_with_parent() -> None:
    """End this process and its children when the run that started it dies."""
    if text := os.environ.pop(PARENT_DESCRIPTOR, None):
        os.set_inheritable(int(text), False)
        exit_with_parent(descriptor=int(text), kill_group=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

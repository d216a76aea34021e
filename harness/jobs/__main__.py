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

from pydantic import ValidationError

from dskd.errors import InputError, Stopped
from dskd.modeling.gpu_share import keep_to_gpu_share
from dskd.processes import StopRequest, exit_with_parent
from harness.jobs.inputs import wait_for_inputs
from harness.runs.ending import end_at_once
from harness.runs.failures import exit_code_of, kind_of, reason_of
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import DONE, MAY_PASS, MISTAKE, PARENT_DESCRIPTOR, STOPPED, JobSpec
from harness.runs.job_state import StateWriter
from harness.runs.late_files import look_again_below
from harness.runs.store import Store
from harness.steps.base import Step


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
        step = Step.model_validate(spec.step)
        about = {"title": step.title, "folder": step.folder, "outputs": spec.outputs}
        progress.state = StateWriter(Path(spec.root), step.id, spec.attempt, **about)
        return _run(spec, step, progress, stop)
    except ValidationError as error:  # the class of the step is gone or has other fields by now
        return _fail(InputError(error.errors()[0]["msg"].removeprefix("Value error, ")), progress, None)
    except (OSError, InputError) as error:
        return _fail(error, progress, None)


def _run(spec: JobSpec, step: Step, progress: ProgressChannel, stop: StopRequest) -> int:
    """Run a step once no other run is doing it."""
    waited = False

    def waiting(holder: str) -> None:
        nonlocal waited
        if not waited:
            waited = True
            print(f"waiting: another run is doing this job ({holder})", flush=True)
            progress.waiting()
        if stop():
            raise Stopped(where="while another run was doing this job")

    def lost(reason: str) -> None:
        progress.send(event="failed", reason=reason, kind="", retry=True)  # and nothing on the disk
        end_at_once()

    store = Store(Path(spec.root), shared_disk=spec.shared_disk, on_loss=lost)
    lock = store.lock(step.folder)
    try:
        lock.acquire(waiting)
    except Stopped as stopped:
        return _stop(stopped, None)
    # A later try goes on from what the one before it has made, and one that had to wait finds what the other run has made.
    fresh = spec.fresh and spec.attempt == 1 and not waited
    with lock.held():
        if spec.shared_disk:
            for output in step.outputs:
                look_again_below(store.output(output.folder).path)
        wanted = [output for output in step.outputs if output.folder in spec.outputs]
        pending = [output for output in wanted if fresh or not store.output(output.folder).holds(output.made)]
        if not pending:
            print("nothing to do: another run has done it", flush=True)
            progress.ended("done")
            return DONE
        if spec.shared_disk:
            wait_for_inputs(store, step)
        for output in pending:
            store.output(output.folder).begin(step.kind, step.title, output.fingerprint, fresh=fresh)
        progress.started()
        told: dict[str, Any] = {
            "stop": stop,
            "attempt": spec.attempt,
            "split_batches": spec.split_batches,
            "store": store,
        }
        job = JobContext(store.root, step.folder, pending, progress, **told)
        try:
            job.stop_here("before it began")
            keep_to_gpu_share()
            step.run(job)
            if job.pending:
                raise RuntimeError(f"{step.id} ended without finishing {', '.join(o.folder for o in job.pending)}")
        except Stopped as stopped:
            return _stop(stopped, progress)
        except Exception as error:
            # What it started was asked to stop, too, and what failed then may have failed for that.
            if stop() and not isinstance(error, InputError):
                traceback.print_exc()
                return _stop(Stopped(where="before it was done"), progress)
            return _fail(error, progress, job)
        progress.ended("done")
    return DONE


def _stop(stopped: Stopped, progress: ProgressChannel | None) -> int:
    """The exit code of a job that was asked to stop; its outputs stay as they are, to go on from.

    Without `progress` it did not have the lock, and its state is the business of the one that has it.
    """
    print(str(stopped), flush=True)
    if progress is not None:
        progress.ended("stopped", str(stopped))
    return STOPPED


def _fail(error: Exception, progress: ProgressChannel, job: JobContext | None) -> int:
    """The exit code of a job that failed, its reason reported.

    The reason goes to whoever started the job first, and then into log, record and manifest: a full disk may have no room for them.
    """
    reason = reason_of(error)
    code = exit_code_of(error)
    progress.failed(reason, retry=code == MAY_PASS, kind=kind_of(error))
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

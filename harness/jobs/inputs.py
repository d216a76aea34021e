"""What a job reads, which another machine may have finished a moment ago."""

from __future__ import annotations

import platform

from harness.runs.job_spec import Output
from harness.runs.late_files import NotSeen, look_again_below, wait_until
from harness.runs.store import Store
from harness.steps.base import Step

SECONDS = 60.0  # a network file system may remember for so long that a file is not there


def wait_for_inputs(store: Store, step: Step, seconds: float = SECONDS) -> None:
    """Wait until all that a step reads of other steps is seen here. NotSeen where it is not after so long."""
    for output in (output for need in step.needs for output in need.outputs):
        folder = store.output(output.folder)
        look_again_below(folder.path)
        if not folder.holds(output):
            print(f"waiting: {folder.path} is not seen as finished on this machine yet", flush=True)
            _wait(store, output, seconds)


def _wait(store: Store, output: Output, seconds: float) -> None:
    folder = store.output(output.folder)
    if wait_until(lambda: folder.holds(output), folder.path, seconds):
        return
    raise NotSeen(
        f"{folder.path}: not seen as finished on {platform.node()} after {seconds:.0f} s; "
        "fix: let all machines have the run's folder at the same path"
    )

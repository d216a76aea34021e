"""What a job reads, which another machine may have finished a moment ago."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from harness.runs.job_spec import Made
from harness.runs.late_files import NotSeen, look_again_below, wait_until
from harness.runs.store import Store
from harness.steps.base import Input, Step
from harness.steps.reference import Reference

SECONDS = 60.0  # a network file system may remember for so long that a file is not there


def wait_for_inputs(store: Store, step: Step, seconds: float = SECONDS) -> None:
    """Wait until all that a step reads of other steps is seen here. NotSeen where it is not after so long."""
    known = [output.made for need in step.needs for output in need.outputs]
    for made in dict.fromkeys([*known, *referred(step)]):
        folder = store.output(made.folder)
        look_again_below(folder.path)
        if not folder.holds(made):
            print(f"waiting: {folder.path} is not seen as finished on this machine yet", flush=True)
            _wait(store, made, seconds)


def referred(input_: Input) -> Iterator[Made]:
    """What it reads by reference: a job is not told of the steps behind that."""
    for each in input_.inputs:
        if isinstance(each, Reference):
            yield from each.made
        elif not isinstance(each, Step):
            yield from referred(each)


def _wait(store: Store, made: Made, seconds: float) -> None:
    folder = store.output(made.folder)
    if wait_until(lambda: folder.holds(made), folder.path, seconds):
        return
    raise NotSeen(
        f"{folder.path}: not seen as finished on {platform.node()} after {seconds:.0f} s; "
        "fix: let all machines have the run's folder at the same path"
    )

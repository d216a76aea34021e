"""A kind of step from outside the package, for tests of processes: it does what a function says, and writes what that returns."""

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

from dskd.plugins import class_at
from harness.costs.resources import Resources
from harness.planning.plan import PlannedJob
from harness.runs.job_context import JobContext
from harness.steps.base import NOT_IDENTITY, Step
from helpers.executor_runs import planned


class ToldStep(Step):
    """uses: what `libraries` says. do: `file.py:function`, called with the job. needs_of: of the job's resources."""

    kind, version, product = "told", 1, "said.json"

    name: str
    uses: Annotated[tuple[str, ...], NOT_IDENTITY] = ()
    do: str = ""

    @property
    def id(self) -> str:
        return self.name

    @property
    def folder(self) -> str:
        return f"cells/{self.name}"

    @property
    def libraries(self) -> tuple[str, ...]:
        return self.uses

    def run(self, job: JobContext) -> None:
        begin, loaded = time.monotonic(), [name for name in ("sqlite3", "torch") if name in sys.modules]
        said: Any = class_at(self.do)(job) if self.do else None
        about = {
            "said": said,
            "begin": begin,
            "end": time.monotonic(),
            "loaded": loaded,
            "pid": os.getpid(),
            "parent": os.getppid(),
            "session": os.getsid(0),
            "threads": threading.active_count(),
            "environment": dict(os.environ),
            "arguments": sys.argv,
            "main": getattr(sys.modules["__main__"].__spec__, "name", None),
        }
        self.path(job.root).write_text(json.dumps(about))
        job.finish(job.output)


def told(root: Path, number: int, needs: Resources | None = None, **fields: Any) -> list[PlannedJob]:
    """So many equal jobs, `job0` and so on."""
    jobs = planned(root, *(ToldStep(name=f"job{each}", **fields) for each in range(number)))
    for job in jobs:
        job.resources = needs or Resources(memory=10**6)
    return jobs


def said(jobs: list[PlannedJob]) -> list[dict[str, Any]]:
    """What they wrote."""
    return [json.loads(job.step.path(job.root).read_text()) for job in jobs]


def most_at_once(answers: list[dict[str, Any]]) -> int:
    """The most that ran at one time."""
    return max(sum(one["begin"] <= each["begin"] < one["end"] for one in answers) for each in answers)

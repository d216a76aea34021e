"""A run of fake jobs with all that watches it, as `harness run` has; also in a process of its own, to be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.executors.local import Executor
from harness.planning.plan import Plan
from harness.results.run_file import RunFile
from harness.runs.store import RUN
from harness.scheduling.executor import Settings
from harness.scheduling.observer import Observers
from harness.scheduling.outcome import Outcome
from harness.scheduling.runner import Runner
from harness.steps.base import Step
from harness.watching.observers import observe
from harness.watching.page import PAGE, PageWriter
from helpers.executor_runs import fake, planned
from helpers.paths import PYTHONPATH


def run_watched(root: Path, *steps: Step, jobs: int = 2, tries: int = 1) -> Mapping[str, Outcome]:
    """Run these steps in a folder that says they are a matrix's."""
    plans = planned(root, *steps)
    plan = Plan("fakes", "fakes.yaml", root, {job.id: job for job in plans}, lambda step, key: key)
    watch, observers = observe(plan, "local", jobs)
    everybody = Observers([*observers, PageWriter(root / PAGE, watch)])
    return Runner(Executor(Settings(root)), everybody, jobs=jobs, tries=tries, delay=0.1).run(plans)


def write_run_file(root: Path, *cells: str) -> None:
    """`run.json` of a matrix whose cells only train."""
    root.mkdir(parents=True, exist_ok=True)
    told = RunFile(matrix="fakes", written="2026-01-01T00:00:00Z", records=[f"cells/{cell}/train" for cell in cells])
    (root / RUN).write_text(told.model_dump_json())


def trainings(root: Path, doing: Mapping[str, str]) -> list[Step]:
    """A fake training for each cell; those that wait do so until the file `gate` is there."""
    return [fake(root, f"{cell}/train", do, title=f"train {cell}", until=root / "gate") for cell, do in doing.items()]


@contextmanager
def running(root: Path, doing: Mapping[str, str], jobs: int = 2) -> Iterator[subprocess.Popen[bytes]]:
    """A harness process that runs these; ended with the block if it still runs."""
    arguments = [f"{cell}={do}" for cell, do in doing.items()]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "helpers.watched_runs", str(root), str(jobs), *arguments]
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def until(holds: Callable[[], object], seconds: float = 90) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def main(root: str, jobs: str, arguments: Sequence[str]) -> None:
    """The harness process."""
    doing = dict(argument.split("=") for argument in arguments)
    run_watched(Path(root), *trainings(Path(root), doing), jobs=int(jobs))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

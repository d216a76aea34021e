"""Runs of made-up jobs on a Slurm of a test, in this process or in one that can be killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.executors.slurm import Executor
from harness.scheduling.executor import Settings
from harness.scheduling.outcome import Outcome
from harness.scheduling.runner import Runner
from harness.steps.base import Step
from helpers.counting_job import CountingStep
from helpers.executor_runs import Recorder, planned

# Files are on one disk here, so nothing arrives late.
QUICK: dict[str, Any] = {"poll": 0.3, "late": 2.0}


def counting(
    root: Path, name: str, numbers: int = 3, seconds: float = 0.5, after: tuple[Step, ...] = ()
) -> CountingStep:
    return CountingStep(
        name=name, title=f"job {name}", numbers=numbers, seconds=seconds, journal=root / "journal", after=after
    )


def counted(root: Path) -> list[str]:
    """What was counted, in order; each line is a job and a number."""
    path = root / "journal"
    return path.read_text().splitlines() if path.exists() else []


def execute(
    root: Path, *steps: Step, recorder: Recorder | None = None, jobs: int | None = None, **options: Any
) -> dict[str, Outcome]:
    """Run these steps and what they need on Slurm."""
    made = Executor(Settings(root, jobs=jobs, options=Executor.Options(**{**QUICK, **options})))
    return Runner(made, recorder or Recorder(), delay=0.1).run(planned(root, *steps))


_RUN = """
import json, sys
from pathlib import Path
from harness.steps.base import Step
from helpers.slurm_runs import execute
told = json.loads(sys.argv[1])
outcomes = execute(Path(told["root"]), *(Step.model_validate(each) for each in told["steps"]), **told["options"])
print(json.dumps({key: [outcome.status, outcome.reason] for key, outcome in outcomes.items()}))
"""


class Run:
    """The same in a process of its own, which can be killed."""

    def __init__(self, root: Path, *steps: Step, **options: Any) -> None:
        told = {"root": str(root), "steps": [step.model_dump(mode="json") for step in steps], "options": options}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN, json.dumps(told)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A suite that a shell started in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def end(self, seconds: float = 60) -> dict[str, list[str]]:
        """The outcomes, each as status and reason."""
        output, errors = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, errors
        return json.loads(output.splitlines()[-1])

    def kill(self) -> None:
        """End it by -9."""
        self.process.kill()
        self.process.communicate(timeout=10)

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def interrupted(self, seconds: float = 60) -> str:
        """Wait until it ended because of Ctrl-C; what it said on standard error."""
        _, errors = self.process.communicate(timeout=seconds)
        assert self.process.returncode != 0
        assert "KeyboardInterrupt" in errors
        return errors


def wait_until(what: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something to hold; fails where it does not."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, f"did not happen in {seconds} s: {what}"
        time.sleep(0.1)

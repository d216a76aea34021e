"""A run on a Ray cluster in a process of its own: `python -m helpers.ray_run ROOT ADDRESS NAME...`, one job a name, after one another.

A job waits for the file ROOT/go-NAME, or does what is said in NAME=DO (helpers.fake_jobs). The outcomes are printed as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.executors.ray import Executor, Options
from harness.runs.failures import ExecutorLost
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder, fake, planned
from helpers.fake_jobs import FakeStep


def main(root: Path, address: str, names: list[str]) -> None:
    steps: list[FakeStep] = []
    for entry in names:
        name, _, do = entry.partition("=")
        steps.append(fake(root, name, do or "wait", until=root / f"go-{name}", after=tuple(steps[-1:])))
    runner = Runner(Executor(Settings(root, options=Options(address=address))), Recorder(), delay=0.1)
    try:
        print(json.dumps({key: outcome.status for key, outcome in runner.run(planned(root, *steps)).items()}))
    except KeyboardInterrupt:
        sys.exit(130)
    except ExecutorLost as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])

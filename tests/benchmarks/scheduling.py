"""What the scheduler costs and how good its schedules are, on clusters that are only simulated. No job is run.

python tests/benchmarks/scheduling.py [--jobs 100000] [--workers 1000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

from harness.costs.resources import GIGABYTE, Resources
from harness.scheduling.executor import Place
from harness.scheduling.scheduler import Task
from helpers.simulation import comparison, least_seconds, simulate


def many(jobs: int, seed: int = 0) -> list[Task]:
    """Trainings with an evaluation each; a third of the trainings come after another one, half need a GPU."""
    draw = random.Random(seed)
    tasks: list[Task] = []
    for k in range(jobs // 2):
        needs = (
            Resources(gpus=1)
            if draw.random() < 0.5
            else Resources(cpus=draw.choice([1, 2, 4]), memory=draw.choice([1, 2, 8]) * GIGABYTE)
        )
        after = (f"train{draw.randrange(k)}",) if k and draw.random() < 0.3 else ()
        tasks.append(Task(f"train{k}", after, needs, draw.uniform(60, 7200)))
        tasks.append(Task(f"evaluate{k}", (f"train{k}",), Resources(gpus=1), draw.uniform(60, 600)))
    return tasks


def main() -> None:
    """Print both measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    tasks = comparison()
    run = simulate(tasks, [Place("box", cpus=64, gpus=8, memory=1000 * GIGABYTE)])
    best = least_seconds(tasks, 8)
    busy = run.busy_gpu_seconds() / (8 * run.seconds)
    print(f"155 trainings on 8 GPUs: {run.seconds / best:.3f} of the shortest possible time, GPUs busy {busy:.1%}")

    tasks = many(arguments.jobs)
    places = [Place(f"worker{k}", cpus=8, gpus=1, memory=64 * GIGABYTE) for k in range(arguments.workers)]
    start = time.process_time()
    large = simulate(tasks, places)
    own = (time.process_time() - start) / len(tasks) * 1000
    print(f"{len(tasks):,} jobs on {len(places):,} workers: {own:.3f} ms of CPU time a job, simulation included")
    if arguments.json:
        found = {"shortest": run.seconds / best, "busy": busy, "ms_per_job": own, "simulated_seconds": large.seconds}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

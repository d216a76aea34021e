"""CPU and wall seconds of `harness run` on a matrix of 100 students that is finished, each evaluated on three tasks of 100 items.

Nothing is trained: records, samples and manifests are those that jobs write, of made-up scores. The models and data are those of
the small world, so no file of the user's is read. `first` is the first call after something changed, `again` every later one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from dskd.processes import python_module
from harness.planning.plan import make_plan
from helpers.finished_runs import finish, write_small_matrix

SEEDS = 10


def measure(command: Sequence[str]) -> dict[str, float]:
    """CPU seconds (user and system, children of it included) and wall seconds of one process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": round(cpu, 3), "wall_seconds": round(wall, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of each of the ten methods")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path, root = write_small_matrix(Path(name) / "finished.yaml", arguments.seeds), Path(name) / "run"
        plan = make_plan(str(path), output_dir=root, allow_code_execution=True)
        finish(plan)
        if make_plan(str(path), output_dir=root).to_run:
            raise SystemExit("the run is not finished: what is measured would be another thing")
        asked = ("--matrix", str(path), "--output-dir", str(root), "--allow-code-execution")
        command = python_module("harness.cli", "run", *asked)
        measure(
            [sys.executable, "-c", "import harness.cli.run"]
        )  # so that no file is read from the disk for the first time
        first = measure(command)
        again = [measure(command) for _ in range(arguments.repeats)]
    found = {
        "cells": sum(job.kind == "train" for job in plan.jobs.values()),
        "outputs": sum(len(job.outputs) for job in plan.jobs.values()),
        "first": first,
        "again": {key: round(median(each[key] for each in again), 3) for key in first},
    }
    print(f"{found['cells']} cells, {found['outputs']} outputs, all done:")
    for which in ("first", "again"):
        print(f"{which:>6}: {found[which]['cpu_seconds']:.2f} CPU seconds, {found[which]['wall_seconds']:.2f} wall")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""CPU and wall seconds of `harness run` on a matrix of 100 students that is finished, each evaluated on three tasks of 100 items.

Nothing is trained: records, samples and manifests are those that jobs write, of made-up scores. The models and data are those of
the small world, so no file of the user's is read. `first` is the first call after something changed, `again` every later one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from dskd.processes import python_module
from harness import tasks
from harness.config.matrix_file import shipped_matrices
from harness.evaluation.summary import summarise
from harness.planning.plan import Plan, make_plan
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import Output

SEEDS = 10
METHODS = {
    "small-student": ["sft", "kd", "dskd-v1", "dskd-v2", "gkd"],
    "small-student-sentencepiece": ["sft", "dskd-v2-eta", "uld", "mined", "strict-kd"],
}


def write_matrix(folder: Path, seeds: int) -> Path:
    """`quick` with ten methods and some seeds."""
    content = yaml.safe_load(shipped_matrices()["quick"].read_text(encoding="utf-8"))
    pairs = [{"teacher": "small-teacher", "student": name, "methods": methods} for name, methods in METHODS.items()]
    path = folder / "finished.yaml"
    path.write_text(yaml.safe_dump(content | {"name": "finished", "pairs": pairs, "seeds": list(range(seeds))}))
    return path


def finish(plan: Plan) -> None:
    """Write what the jobs of a plan would leave behind, weights aside."""
    for job in plan.jobs.values():
        outputs = [each.output for each in job.outputs]
        context = JobContext(plan.root, job.step.folder, outputs, ProgressChannel())
        for output in outputs:
            context.store.output(output.folder).begin(job.kind, job.title, output.fingerprint)
            if output.product:
                (plan.root / output.folder / output.product).mkdir(parents=True)
            context.finish(output, **_result(output))


def _result(output: Output) -> dict[str, Any]:
    cell = output.cell
    if cell is None or cell.task is None:
        return {}
    task, chance = tasks.load(cell.task), random.Random(output.folder)
    right = 0.3 + 0.1 * len(cell.method) / 10
    names = [metric.name for metric in task.metrics]
    samples = [
        {
            "id": doc["id"],
            "index": 0,
            "prompt": task.prompt(doc),
            "output": task.reference(doc),
            "scores": dict.fromkeys(names, 100.0 * (chance.random() < right)),
            "extracted": {},
            "outcome": "wrong",
            "finish_reason": "stop",
            "generated_tokens": 12,
            "prompt_truncated": False,
        }
        for doc in task.docs()
    ]
    summary = summarise(task, samples)
    return {
        "samples": samples,
        "engine": "transformers",
        "n": summary["n"],
        "headline": names[0],
        "metrics": summary["metrics"],
    }


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
        path, root = write_matrix(Path(name), arguments.seeds), Path(name) / "run"
        plan = make_plan(str(path), output_dir=root, allow_code_execution=True)
        finish(plan)
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

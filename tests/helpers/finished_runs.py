"""Finished runs that nobody trained: what the jobs of a plan would leave behind, of made-up scores, weights aside."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from harness import tasks
from harness.config.matrix_file import shipped_matrices
from harness.evaluation.summary import summarise
from harness.planning.plan import Plan, PlannedJob
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import Output
from harness.runs.store import LOG

METHODS = {
    "small-student": ["sft", "kd", "dskd-v1", "dskd-v2", "gkd"],
    "small-student-sentencepiece": ["sft", "dskd-v2-eta", "uld", "mined", "strict-kd"],
}
# What stands for the product of a step, so that folders have a size.
PRODUCT = b"product" * 1000


def write_small_matrix(path: Path, seeds: int, **changes: Any) -> Path:
    """`quick` with ten methods and some seeds; `changes` to its keys."""
    content = yaml.safe_load(shipped_matrices()["quick"].read_text(encoding="utf-8"))
    pairs = [{"teacher": "small-teacher", "student": name, "methods": methods} for name, methods in METHODS.items()]
    content |= {"name": "finished", "pairs": pairs, "seeds": list(range(seeds)), **changes}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def finish(plan: Plan, jobs: Iterable[PlannedJob] | None = None) -> None:
    """Write what the jobs of a plan, or some of them, would leave behind."""
    for job in plan.jobs.values() if jobs is None else jobs:
        outputs = [each.output for each in job.outputs]
        context = JobContext(plan.root, job.step.folder, outputs, ProgressChannel())
        for output in outputs:
            folder = context.store.output(output.folder)
            folder.begin(job.kind, job.title, output.fingerprint)
            (folder.path / LOG).write_text("log")
            if output.product:
                (folder.path / output.product).mkdir(parents=True)
                (folder.path / output.product / "content").write_bytes(PRODUCT)
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
        for doc in task.docs(100)  # as many as `quick` asks
    ]
    summary = summarise(task, samples)
    return {
        "samples": samples,
        "engine": "transformers",
        "n": summary["n"],
        "headline": names[0],
        "metrics": summary["metrics"],
    }

"""Trains the student of one cell."""

from __future__ import annotations

import json
from pathlib import Path

from harness.jobs.context import JobContext
from harness.jobs.model import training_cost, training_progress


def run(job: JobContext) -> None:
    """Train into the job's folder: `model/` is the student; an interrupted training goes on from its last checkpoint."""
    from dskd.training import TrainingOptions, train

    (output,) = job.spec.outputs
    arguments = job.arguments
    report = train(
        data=Path(arguments["data"]),
        student=Path(arguments["student"]),
        teacher=Path(arguments["teacher"]) if arguments["teacher"] else None,
        method=arguments["method"],
        method_options=arguments["method_options"],
        options=TrainingOptions.model_validate(arguments["training"]),
        seed=arguments["seed"],
        output=job.folder,
        progress=training_progress(job, "training"),
    )
    job.finish(output, report=json.loads(report.model_dump_json()), cost=training_cost(job, [report.model_dump()]))

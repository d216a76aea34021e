"""Trains the student of one cell."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.runs.environment import peak_memory_of_children
from harness.runs.job_context import JobContext
from harness.steps.base_model import training_cost, training_progress
from harness.steps.teacher_cache import build

if TYPE_CHECKING:
    from dskd.training.run import TrainingReport


def run(job: JobContext) -> None:
    """Train into the job's folder: `model/` is the student; an interrupted training goes on from its last checkpoint."""
    (output,) = job.spec.outputs
    arguments = job.arguments
    signal = arguments["signal"]
    computed = 0
    measured: dict[str, Any] = {}
    if signal is not None:
        computed = _mend(job, signal)
        measured = _shared_cost(job, signal)
    report = _train(job, job.store.root / signal["folder"] / "signal" if signal is not None else None)
    measured["processes"] = arguments["launch"]["processes"]
    if _is_launched(arguments["launch"]):
        # The processes that trained are not this one.
        measured |= {"peak_memory": peak_memory_of_children(), "peak_device_memory": report.peak_device_memory}
    cost = training_cost(job, [report.model_dump()], teacher_examples=report.teacher_examples + computed, **measured)
    job.finish(output, report=json.loads(report.model_dump_json()), cost=cost)


def _train(job: JobContext, signal: Path | None) -> TrainingReport:
    """Train in this process, or in several where the matrix says so."""
    from dskd.training.options import TrainingOptions
    from dskd.training.run import train

    arguments, launch = job.arguments, job.arguments["launch"]
    progress = training_progress(job, "training")
    if not _is_launched(launch):
        return train(
            data=Path(arguments["data"]),
            student=Path(arguments["student"]),
            teacher=Path(arguments["teacher"]) if arguments["teacher"] else None,
            method=arguments["method"],
            method_options=arguments["method_options"],
            options=TrainingOptions.model_validate(arguments["training"]),
            seed=arguments["seed"],
            output=job.folder,
            teacher_cache=signal,
            progress=progress,
        )
    from dskd.training.launch import launch_training

    # The processes share the cores of this job.
    os.environ["OMP_NUM_THREADS"] = str(max(1, int(os.environ.get("OMP_NUM_THREADS") or 1) // launch["processes"]))
    request = {
        **{key: arguments[key] for key in ("data", "student", "teacher", "method", "method_options", "seed")},
        "options": arguments["training"],
        "output": str(job.folder),
        "teacher_cache": str(signal) if signal else None,
    }
    return launch_training(
        request,
        processes=launch["processes"],
        accelerate_config=launch["accelerate_config"],
        on_progress=progress,
        on_line=lambda line: print(line, flush=True),
    )


def _is_launched(launch: Mapping[str, Any]) -> bool:
    return launch["accelerate_config"] is not None or launch["processes"] not in (None, 1)


def _mend(job: JobContext, signal: Mapping[str, Any]) -> int:
    """Compute again what of a shared signal turns out damaged; for how many examples the teacher was run.

    Several trainings may find the damage at once: one mends it and the others wait, as for any job.
    """
    from dskd.errors import InputError
    from dskd.teachers.outputs import open_teacher_cache

    folder = job.store.root / signal["folder"] / "signal"
    with job.store.lock(signal["folder"]):
        try:
            open_teacher_cache(folder, "cpu")
        except InputError as damage:
            print(f"{damage}\ncomputing what is damaged again", flush=True)
            return build(job, signal, folder).built_rows
    return 0


def _shared_cost(job: JobContext, signal: Mapping[str, Any]) -> dict[str, Any]:
    """What the signal took once, as its own job measured it."""
    manifest = job.store.output(signal["folder"]).manifest
    cost = manifest.report.get("cost", {}) if manifest is not None else {}
    return {"signal_seconds": cost.get("teacher_seconds"), "signal_examples": cost.get("teacher_examples")}

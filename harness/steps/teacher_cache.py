"""Computes what a teacher says about a training set, once for all the students that learn from it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.runs.job_context import JobContext

if TYPE_CHECKING:
    from dskd.teachers.outputs import TeacherCacheReport


def run(job: JobContext) -> None:
    """Make `signal/` in the job's folder; what is whole of an interrupted attempt is not computed again."""
    (output,) = job.spec.outputs
    report = build(job, job.arguments, job.folder / "signal")
    print(f"{report.rows:,} examples, {report.tokens:,} labelled tokens, {size(report.bytes)}", flush=True)
    measured: dict[str, Any] = {"teacher_seconds": round(report.seconds, 3)}
    if report.reused_rows:
        reason = f"resumed: {report.reused_rows} of {report.rows} examples were computed before"
        measured = {"teacher_seconds": None, "wall_seconds": None, "reason": reason}
    job.finish(
        output,
        report=report.model_dump(mode="json"),
        cost=job.cost(teacher_examples=report.rows, **measured),
    )


def build(job: JobContext, arguments: Mapping[str, Any], folder: Path) -> TeacherCacheReport:
    """Compute into `folder` what is missing there or damaged; `arguments` are those of a signal's job."""
    from dskd.teachers.outputs import TeacherCacheDamaged, TeacherCacheOptions, build_teacher_cache

    def report(event: dict[str, Any]) -> None:
        if "estimate_bytes" in event:
            stage = f"signal of about {size(event['estimate_bytes'])}"
            print(stage, flush=True)
            stages.append(stage)
            job.progress.send(event="progress", stage=stage, done=0, total=None)
        else:
            job.progress.advance(stages[-1], event["step"], event["steps"])

    def attempt() -> TeacherCacheReport:
        return build_teacher_cache(
            Path(arguments["teacher"]),
            Path(arguments["data"]),
            folder,
            options=TeacherCacheOptions.model_validate(arguments["options"]),
            dtype=arguments["dtype"],
            device=_device(),
            progress=report,
        )

    stages: list[str] = []
    try:
        return attempt()
    except TeacherCacheDamaged as damage:  # in what describes the signal itself, so that none of it can be trusted
        print(f"{damage}\nstarting again from nothing", flush=True)
        shutil.rmtree(folder)
        return attempt()


def size(number: int) -> str:
    """`3.2 MB`, `1.7 GB`."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def _device() -> Any:
    import torch

    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")

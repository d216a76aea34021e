"""The jobs that run, by the states that they keep on the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.runs.job_state import STATE, JobState
from harness.runs.store import LOG
from harness.runs.which_process import lives
from harness.watching.liveness import beat_age
from harness.watching.snapshot import RunningJob, cell_of
from harness.watching.text import line

SILENT = 60.0  # seconds without a beat after which a job of another machine counts as silent
_AT_WORK = {"starting", "running"}


def jobs_at_work(root: Path, harnesses: list[Path]) -> list[JobState]:
    """The states of jobs that run. harnesses: the folders of the processes that live."""
    # What was killed on another machine has left its state: it is as old as before the harnesses that live.
    since = max((_age_of(folder / "run.json") for folder in harnesses), default=0.0)
    return [
        job
        for job in _states(root)
        if job.state in _AT_WORK
        and (known := lives(job.machine, job.pid, job.born)) is not False
        and (known or (_age(root, job, time.time()) or 0.0) < max(since, SILENT))
    ]


def _states(root: Path) -> Iterator[JobState]:
    try:
        with os.scandir(root / ".harness" / "jobs") as entries:
            names = sorted(entry.path for entry in entries)
    except OSError:
        return
    for name in names:
        if (state := JobState.read_file(Path(name, STATE))) is not None:
            yield state


def _age_of(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _age(root: Path, job: JobState, clock: float) -> float | None:
    """The seconds since a job wrote its state."""
    try:
        return max(0.0, clock - JobState.path(root, job.job).stat().st_mtime)
    except OSError:
        return None


def disk_clock(folders: list[Path]) -> float:
    """The time by which ages count: ours, unless that of the disk differs, as the beat of a living harness shows."""
    ages = [age for age in map(beat_age, folders) if age is not None]
    youngest = min(ages, key=abs, default=0.0)
    return time.time() - youngest if abs(youngest) > SILENT else time.time()


def running_job(root: Path, job: JobState, clock: float) -> RunningJob:
    """A job as views show it; `clock`: the time by which ages count."""
    age = _age(root, job, clock)
    known = lives(job.machine, job.pid, job.born)
    is_silent = known is None and age is not None and age > SILENT
    return RunningJob(
        id=job.job,
        title=line(job.title or job.job),
        kind=job.job.partition(":")[0],
        cell=cell_of(job.folder),
        place=line(job.host),
        devices=line(job.devices or ""),
        attempt=job.attempt,
        state="silent" if is_silent else job.state,
        seconds=job.seconds + (age or 0.0),
        stage=line(job.stage),
        done=job.done,
        total=job.total,
        metrics=job.metrics,
        memory=job.memory,
        device_memory=job.device_memory,
        device_use=job.device_use,
        beat_seconds=None if age is None else round(age, 1),
        log=str(root / job.folder / LOG),
    )


def starting_job(root: Path, event: dict[str, Any]) -> RunningJob:
    """A job whose process was started and has not written its state yet."""
    folder = str(event.get("folder"))
    return RunningJob(
        id=str(event["job"]),
        title=line(event.get("title", "")),
        kind=str(event.get("kind")),
        cell=cell_of(folder),
        place=line(event["place"]),
        devices=",".join(map(str, event.get("gpus") or ())),
        attempt=int(event.get("attempt") or 1),
        seconds=seconds_since(str(event.get("time"))),
        log=str(root / folder / LOG),
    )


def seconds_since(started: str) -> float:
    """Since a time that another process has written, by our clock; 0 where it is no time."""
    try:
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(started)).total_seconds())
    except ValueError:
        return 0.0

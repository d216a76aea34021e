"""Jobs for an executor, and a reporter that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.planning.plan import PlannedJob, decide
from harness.scheduling.executor import Attempt
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome
from harness.steps.base import Step
from helpers.fake_jobs import FakeStep


class Recorder(Observer):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.on_progress: Callable[[Mapping[str, object]], None] = lambda event: None

    def started(self, attempt: Attempt) -> None:
        self.events.append(("start", attempt.job.id))

    def said(self, job: PlannedJob, event: Mapping[str, object]) -> None:
        self.events.append((str(event["event"]), job.id))
        self.on_progress(event)

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        self.events.append((outcome.status, job.id))


def fake(root: Path, name: str, do: str = "ok", **more: Any) -> FakeStep:
    return FakeStep(name=name, do=do, **{"title": f"job {name}", "journal": root / "journal", **more})


def planned(root: Path, *steps: Step) -> list[PlannedJob]:
    """All of them to be run, whatever is there: what a run does with what it finds is the job's own business."""
    jobs = decide(steps, root, "stale")
    for job in jobs.values():
        job.action, job.wanted = "run", list(job.step.outputs)
    return list(jobs.values())

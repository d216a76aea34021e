"""Jobs for an executor, and a reporter that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from harness.planning.artifacts import Node

from harness.executors import Outcome
from harness.planning.plan import PlannedJob, decide
from harness.runs.identity import Identity
from harness.runs.job_spec import JobSpec, OutputSpec
from harness.runs.store import Store


class Recorder:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.on_progress: Callable[[Mapping[str, object]], None] = lambda event: None

    def started(self, job: PlannedJob) -> None:
        self.events.append(("start", job.spec.id))

    def progress(self, job: PlannedJob, event: Mapping[str, object]) -> None:
        self.events.append((str(event["event"]), job.spec.id))
        self.on_progress(event)

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        self.events.append((outcome.status, job.spec.id))


def node(root: Path, name: str, do: str = "ok", needs: tuple[str, ...] = (), **arguments: str) -> Node:
    arguments = {"do": do, "journal": str(root / "journal"), **arguments}
    output = OutputSpec(folder=f"cells/{name}", identity=Identity.of({"name": name, "do": do}), product="product")
    spec = JobSpec(
        id=name,
        kind="fake",
        title=f"job {name}",
        runner="helpers.fake_jobs",
        root=str(root),
        folder=output.folder,
        outputs=[output],
        arguments=arguments,
    )
    return Node(spec, needs)


def planned(root: Path, *nodes: Node) -> list[PlannedJob]:
    """All of them to be run, whatever is there: what a run does with what it finds is the job's own business."""
    jobs = decide({node.spec.id: node for node in nodes}, Store(root), "stale")
    for job in jobs.values():
        job.action = "run"
    return list(jobs.values())

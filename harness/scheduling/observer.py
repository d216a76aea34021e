"""Who hears of a run while it goes on: a person's screen, the event log, the status page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.planning.plan import PlannedJob
from harness.scheduling.executor import Attempt
from harness.scheduling.outcome import Outcome


class Observer:
    """Hears of the jobs of a run; every method may be left out."""

    def opened(self, jobs: Sequence[PlannedJob]) -> None:
        """The run begins with these jobs."""

    def started(self, attempt: Attempt) -> None:
        """A try of a job was started, or handed over to a queue."""

    def said(self, job: PlannedJob, event: Mapping[str, Any]) -> None:
        """A running job said something (harness.scheduling.executor.Said)."""

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        """A try failed with this reason; the try with this number follows in so many seconds."""

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        """A job ended for good."""

    def stopping(self, *, now: bool) -> None:
        """The run was asked to stop: running jobs end at their next checkpoint, or `now`."""

    def tick(self) -> None:
        """Called about ten times a second while the run waits."""

    def closed(self, outcomes: Mapping[str, Outcome]) -> None:
        """The run has ended."""


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = list(observers)

    def opened(self, jobs: Sequence[PlannedJob]) -> None:
        for each in self._all:
            each.opened(jobs)

    def started(self, attempt: Attempt) -> None:
        for each in self._all:
            each.started(attempt)

    def said(self, job: PlannedJob, event: Mapping[str, Any]) -> None:
        for each in self._all:
            each.said(job, event)

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        for each in self._all:
            each.again(job, reason, number, seconds)

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        for each in self._all:
            each.ended(job, outcome)

    def stopping(self, *, now: bool) -> None:
        for each in self._all:
            each.stopping(now=now)

    def tick(self) -> None:
        for each in self._all:
            each.tick()

    def closed(self, outcomes: Mapping[str, Outcome]) -> None:
        for each in self._all:
            each.closed(outcomes)

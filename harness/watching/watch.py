"""Watches a run from inside the harness process: the observer behind the live view and the status page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.planning.plan import PlannedJob
from harness.runs.store import LOG
from harness.scheduling.executor import Attempt
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome
from harness.watching.snapshot import Cells, Failure, PartState, RunningJob, Snapshot, cell_of, group_of
from harness.watching.text import line
from harness.watching.time_left import Alike, Guess, TimeLeft

_OUTCOMES: dict[str, PartState] = {"done": "done", "failed": "failed", "not_run": "skipped", "stopped": "waiting"}
_MOST_FAILURES = 50


def alike(job: PlannedJob) -> Alike:
    """What a job's duration depends on."""
    cell = cell_of(job.step.folder)
    pair, method = group_of(cell) if cell is not None else ("", "")
    return Alike(job.kind, pair, method, job.resources.minutes)


class Watch(Observer):
    """Counts what a run does.

    Args:
        root: The folder of the run.
        jobs: All of the plan, those that are kept too: their cells are shown as done.
        name: Of the matrix.
        executor: Its name.
        parallel: Jobs at once, as far as is known.
        clock: Seconds that go on steadily.
    """

    def __init__(
        self,
        root: Path,
        jobs: Iterable[PlannedJob],
        *,
        name: str = "",
        executor: str = "",
        parallel: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        jobs = list(jobs)
        self._root, self._name, self._executor, self._clock = root, name, executor, clock
        self._begun = clock()
        self.cells = Cells()
        self._set_up(jobs)
        to_run = [job for job in jobs if job.action == "run"]
        self._planned = {job.id: job for job in to_run}
        self.jobs, self.jobs_done = len(to_run), 0
        self.time_left = TimeLeft(
            {job.id: alike(job) for job in to_run}, {job.id: job.needs for job in to_run}, parallel
        )
        self.running: dict[str, RunningJob] = {}
        self._since: dict[str, float] = {}
        self._queued: dict[str, Attempt] = {}
        self.failures: deque[Failure] = deque(maxlen=_MOST_FAILURES)
        self._stopping = self._is_closed = False
        self._guess: tuple[float, Guess | None] | None = None  # when the time left was last estimated

    def _set_up(self, jobs: Sequence[PlannedJob]) -> None:
        for job in jobs:
            if job.action == "unneeded":
                continue
            wanted = {output.folder for output in job.wanted}
            for each in job.outputs:
                folder = each.output.folder
                state: PartState = "waiting" if folder in wanted and job.action == "run" else "done"
                if state == "done" and each.status in {"failed", "missing"}:
                    state = "failed" if each.status == "failed" else "skipped"  # kept, or blocked
                self.cells.set(folder, state)

    def started(self, attempt: Attempt) -> None:
        """A try began, or was handed to a queue, which does not say where it will run: then it waits until it says something."""
        if attempt.allocation is None:
            self._queued[attempt.job.id] = attempt
        else:
            self._begin(attempt)

    def _begin(self, attempt: Attempt) -> None:
        job, where, moment = attempt.job, attempt.allocation, self._clock()
        self.time_left.started(job.id, moment)
        self._since[job.id] = moment
        self.running[job.id] = RunningJob(
            id=job.id,
            title=line(job.title),
            kind=job.kind,
            cell=cell_of(job.step.folder),
            place="" if where is None else where.place,
            devices="" if where is None else ",".join(map(str, where.gpus)),
            attempt=attempt.number,
            log=str(job.folder / LOG),
        )
        self._set(job, "running")

    def said(self, job: PlannedJob, event: Mapping[str, Any]) -> None:
        """A job told something."""
        if event.get("event") == "again":  # its queue has taken it back
            self.time_left.again(job.id)
            self._stop(job)
            self._queued[job.id] = Attempt(job)
            self._set(job, "waiting")
            return
        if job.id in self._queued:
            self._begin(self._queued.pop(job.id))
        running = self.running.get(job.id)
        if running is None:
            return
        kind = event.get("event")
        if kind == "progress":
            running.state, running.stage = "running", line(event.get("stage", ""))
            running.done, running.total = event.get("done"), event.get("total")
            if running.share is not None:
                self.time_left.advanced(job.id, running.stage, running.share, self._clock())
        elif kind == "metrics":
            running.metrics = dict(event.get("metrics") or {})
            running.memory, running.device_memory = event.get("memory"), event.get("device_memory")
            running.device_use = event.get("device_use")
        elif kind == "started":
            running.state = "running"
            if running.place in {"", "here"}:
                running.place = str(event.get("host") or running.place)
            running.devices = str(event.get("devices") or running.devices)
        elif kind == "waiting":
            running.state = "waiting"

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        """A try failed, and another follows."""
        self.time_left.again(job.id)
        self._stop(job)
        self._set(job, "waiting")

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        """A job ended for good."""
        self.time_left.ended(job.id, self._clock(), counts=outcome.status == "done")
        self._stop(job)
        self.jobs_done += 1
        self._set(job, _OUTCOMES[outcome.status])
        if outcome.status == "failed":
            log = str(job.folder / LOG)
            self.failures.appendleft(Failure(line(job.title), line(outcome.reason), log, cell_of(job.step.folder)))
        self._guess = None

    def stopping(self, *, now: bool) -> None:
        """The run was asked to stop."""
        self._stopping = True

    def closed(self, outcomes: Mapping[str, Outcome]) -> None:
        """The run has ended."""
        self._is_closed = True
        for job in list(self.running.values()):  # ended with the run
            self._set(self._planned[job.id], "waiting")
        self.running.clear()

    def left(self) -> Guess | None:
        """The time left of the run; estimated anew every second at most."""
        moment = self._clock()
        # Its cost grows with the number of jobs.
        if self._guess is None or moment - self._guess[0] >= max(1.0, self.jobs / 2000):
            self._guess = moment, self.time_left.guess(moment)
        return self._guess[1]

    def snapshot(self) -> Snapshot:
        """The state now."""
        moment = self._clock()
        for key, running in self.running.items():
            running.seconds = moment - self._since[key]
        return Snapshot(
            name=line(self._name) or self._root.resolve().name,
            root=str(self._root),
            executor=self._executor,
            lives=not self._is_closed,
            seconds=moment - self._begun,
            left=None if self._is_closed else self.left(),
            cells=self.cells.by_state,
            groups=self.cells.by_group,
            running=list(self.running.values()),
            failures=list(self.failures),
            jobs_done=self.jobs_done,
            jobs=self.jobs,
            stopping=self._stopping,
            closed=self._is_closed,
        )

    def _stop(self, job: PlannedJob) -> None:
        self._queued.pop(job.id, None)
        self.running.pop(job.id, None)
        self._since.pop(job.id, None)

    def _set(self, job: PlannedJob, state: PartState) -> None:
        for output in job.wanted:
            self.cells.set(output.folder, state)

"""The progress of a run on stderr: bars with the time left on a terminal, a line per job elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from harness.planning.plan import PlannedJob
from harness.scheduling.executor import Attempt
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


@dataclass
class TimeLeft:
    """Estimates when a run will end, from the time that its jobs of each kind have taken.

    A running job counts with its own progress, a waiting one with the mean of its kind. Without any finished or advanced job of a
    kind there is no estimate.
    """

    waiting: dict[str, str]  # id -> kind
    parallel: int
    _taken: dict[str, list[float]] = field(default_factory=dict)
    _running: dict[str, tuple[str, float, float]] = field(default_factory=dict)  # id -> kind, start, share done

    def started(self, key: str, moment: float) -> None:
        """A job began."""
        self._running[key] = (self.waiting.pop(key), moment, 0.0)

    def advanced(self, key: str, share: float) -> None:
        """A job has done this share of its current stage."""
        kind, start, _ = self._running[key]
        self._running[key] = (kind, start, share)

    def again(self, key: str) -> None:
        """A job will be started once more."""
        self.waiting[key] = self._running.pop(key)[0]

    def ended(self, key: str, moment: float, counts: bool) -> None:
        """A job ended; `counts` if its time tells something about others."""
        self.waiting.pop(key, None)
        if key in self._running:
            kind, start, _ = self._running.pop(key)
            if counts:
                self._taken.setdefault(kind, []).append(moment - start)

    def seconds(self, moment: float) -> float | None:
        """The time left; None if it cannot be estimated."""
        lengths = {kind: sum(taken) / len(taken) for kind, taken in self._taken.items()}
        for kind, start, share in self._running.values():
            if kind not in lengths and share > 0.05:
                lengths[kind] = (moment - start) / share
        kinds = [*self.waiting.values(), *(kind for kind, _, _ in self._running.values())]
        if any(kind not in lengths for kind in kinds):
            return None
        left = [max(0.0, lengths[kind] - (moment - start)) for kind, start, _ in self._running.values()]
        work = sum(left) + sum(lengths[kind] for kind in self.waiting.values())
        return max(work / self.parallel, max(left, default=0.0))


class PlainReporter(Observer):
    """One line when a job starts and one when it ends."""

    def __init__(self, console: Console, planned: Sequence[PlannedJob], parallel: int) -> None:
        self._console = console
        self._total = len(planned)
        self._ended = 0
        self._begun = time.monotonic()
        self._left = TimeLeft({job.id: job.kind for job in planned}, parallel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None

    def started(self, attempt: Attempt) -> None:
        """A job began."""
        self._left.started(attempt.job.id, time.monotonic())
        self._line("start", attempt.job, f"  try {attempt.number}" if attempt.number > 1 else "")

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        """A try failed."""
        self._left.again(job.id)
        self._line("again", job, f"  {reason}; try {number} in {duration(seconds)}")

    def said(self, job: PlannedJob, event: Mapping[str, object]) -> None:
        """A job advanced; only waiting is printed."""
        done, total = event.get("done"), event.get("total")
        if isinstance(done, (int, float)) and isinstance(total, (int, float)) and total:
            self._left.advanced(job.id, min(1.0, done / total))
        if event.get("event") == "waiting":
            self._line("wait ", job, "  another run is doing it")

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        """A job ended."""
        self._ended += 1
        self._left.ended(job.id, time.monotonic(), outcome.status == "done")
        if outcome.status == "done":
            self._line("done ", job, f"  {duration(outcome.seconds)}{self._guess()}")
        elif outcome.status == "failed":
            self._line("FAIL ", job, f"  {duration(outcome.seconds)}: {outcome.reason}")
        else:
            self._line("skip ", job, f"  {outcome.reason}")

    def _guess(self) -> str:
        left = self._left.seconds(time.monotonic()) if self._ended < self._total else None
        return f"; about {duration(left)} left" if left is not None else ""

    def _line(self, word: str, job: PlannedJob, rest: str) -> None:
        text = f"[{self._ended}/{self._total}] {word} {job.title}{rest}"
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Left(TimeRemainingColumn):
    """The time left: our estimate for the run, whose jobs differ, and Rich's for a job, whose steps are alike."""

    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return super().render(task) if left is None else Text(left, style="progress.remaining")


class BarReporter(PlainReporter):
    """A bar per running job and one for the run, each with the time left, below the lines of ended jobs."""

    def __init__(self, console: Console, planned: Sequence[PlannedJob], parallel: int) -> None:
        super().__init__(console, planned, parallel)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            _Left(),
            console=console,
        )
        self._whole = self._bars.add_task("whole run", total=self._total, note=f"0/{self._total} jobs", left="")
        self._tasks: dict[str, TaskID] = {}
        self._stages: dict[str, object] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._bars.stop()

    def started(self, attempt: Attempt) -> None:
        """Show a bar, which pulses until the job reports its progress."""
        job = attempt.job
        self._left.started(job.id, time.monotonic())
        self._tasks[job.id] = self._bars.add_task(escape(job.title), total=None, note="starting")

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        """Replace the bar by a line."""
        super().again(job, reason, number, seconds)
        self._bars.remove_task(self._tasks.pop(job.id))

    def said(self, job: PlannedJob, event: Mapping[str, object]) -> None:
        """Move the bar of the job; a new stage restarts its clock."""
        super().said(job, event)
        if event.get("event") != "progress":
            return
        task, stage = self._tasks[job.id], event.get("stage")
        done, total = event.get("done"), event.get("total")
        if self._stages.get(job.id) != stage:
            self._stages[job.id] = stage
            self._bars.reset(task)
        self._bars.update(
            task,
            completed=float(done) if isinstance(done, (int, float)) else 0.0,
            total=float(total) if isinstance(total, (int, float)) else None,
            note=escape(str(stage)),
        )
        self._show_left()

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        """Replace the bar by a line."""
        super().ended(job, outcome)
        task = self._tasks.pop(job.id, None)
        if task is not None:
            self._bars.remove_task(task)
        self._bars.update(self._whole, completed=self._ended)
        self._show_left()

    def _show_left(self) -> None:
        left = self._left.seconds(time.monotonic())
        text = f"about {duration(left)} left" if left is not None else ""
        self._bars.update(self._whole, note=f"{self._ended}/{self._total} jobs", left=text)


def make_reporter(planned: Sequence[PlannedJob], parallel: int) -> PlainReporter:
    """Bars on a terminal, lines elsewhere. Rich honours NO_COLOR."""
    console = Console(stderr=True)
    return (BarReporter if console.is_terminal else PlainReporter)(console, planned, parallel)

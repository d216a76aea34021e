"""The progress of a run on stderr: a view that is drawn again on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from rich.console import Console
from rich.live import Live

from harness.cli.live_view import LiveView, summary
from harness.planning.plan import PlannedJob
from harness.scheduling.executor import Attempt
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome
from harness.watching.text import duration, left, on_one_line
from harness.watching.watch import Watch

FEW = 50  # jobs of which each has a line when it starts
_SUMMARY_SECONDS = 60.0
_DRAWN_SECONDS = 0.25


class PlainReporter(Observer):
    """Lines: one when a job ends, in small runs also when it starts, and every minute where the run is.

    Args:
        console: Where they go.
        watch: Counts; it has to hear of everything first.
        clock: Seconds that go on steadily.
    """

    def __init__(self, console: Console, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._watch, self._clock = console, watch, clock
        self._is_small = watch.jobs <= FEW
        self._queued: set[str] = set()
        self._skipped: list[PlannedJob] = []  # one after the other, for the same reason
        self._reason = ""
        self._spoke = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._tell_skipped()

    def started(self, attempt: Attempt) -> None:
        """A job began, or went into a queue."""
        if attempt.allocation is None:
            self._queued.add(attempt.job.id)
        if self._is_small:
            self._start("queue" if attempt.allocation is None else "start", attempt.job, attempt.number)

    def said(self, job: PlannedJob, event: Mapping[str, Any]) -> None:
        """A job advanced; printed is that it waits, or that a queue has started it."""
        if event.get("event") == "waiting":
            self._line("wait ", job, "  another run is doing it")
        if event.get("event") == "again":
            self._queued.add(job.id)
            self._line("again", job, f"  {event.get('reason')}; back in the queue")
        if event.get("event") == "started" and job.id in self._queued:
            self._queued.discard(job.id)
            if self._is_small:
                self._line("start", job, f"  on {event['host']}" if event.get("host") else "")

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        """A try failed."""
        self._line("again", job, f"  {reason}; try {number} in {duration(seconds)}")

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        """A job ended."""
        self._queued.discard(job.id)
        if outcome.status == "done":
            self._line("done ", job, f"  {duration(outcome.seconds)}{self._guess()}")
        elif outcome.status == "failed":
            self._line("FAIL ", job, f"  {duration(outcome.seconds)}: {outcome.reason}")
        elif outcome.status == "stopped":
            self._line("stop ", job, f"  {outcome.reason}")
        else:
            if self._reason != outcome.reason:
                self._tell_skipped()
            self._reason = outcome.reason
            self._skipped.append(job)

    def stopping(self, *, now: bool) -> None:
        """The run was asked to stop."""
        words = "ending running jobs now" if now else "stopping: running jobs end at their next checkpoint"
        self._print(words + ("" if now else "; Ctrl-C again ends them at once"))

    def tick(self) -> None:
        """Say once a minute where the run is."""
        self._tell_skipped()
        if self._clock() - self._spoke >= _SUMMARY_SECONDS:
            self._spoke = self._clock()
            self._print(summary(self._watch.snapshot()))

    def _start(self, word: str, job: PlannedJob, number: int) -> None:
        self._line(word, job, f"  try {number}" if number > 1 else "")

    def _guess(self) -> str:
        guess = self._watch.left() if self._watch.jobs_done < self._watch.jobs else None
        return f"; {left(guess)}" if guess is not None else ""

    def _tell_skipped(self) -> None:
        """One line for all that was left out for one reason."""
        jobs, self._skipped = self._skipped, []
        if len(jobs) == 1:
            self._line("skip ", jobs[0], f"  {self._reason}")
        elif jobs:
            self._print(f"{self._counted()} skip  {len(jobs)} jobs  {self._reason}")

    def _line(self, word: str, job: PlannedJob, rest: str) -> None:
        self._tell_skipped()
        self._print(f"{self._counted()} {word} {job.title}{rest}")

    def _counted(self) -> str:
        return f"[{self._watch.jobs_done}/{self._watch.jobs}]"

    def _print(self, text: str) -> None:
        self._console.print(on_one_line(text), markup=False, highlight=False, soft_wrap=True)


class LiveReporter(PlainReporter):
    """A view of the whole run at the bottom of a terminal; above it the lines of jobs that ended, in large runs of failed ones only."""

    def __init__(self, console: Console, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(console, watch, clock)
        self._drawn = float("-inf")
        self._size = console.size
        self._live = self._new_live()

    def _new_live(self) -> Live:
        # Drawn by `tick`, in the thread that changes what is drawn.
        return Live(console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._live.stop()
        self._console.print(LiveView(self._watch.snapshot(), height=12))

    def started(self, attempt: Attempt) -> None:
        """A job began: the view shows it."""
        if attempt.allocation is None:
            self._queued.add(attempt.job.id)

    def said(self, job: PlannedJob, event: Mapping[str, Any]) -> None:
        """A job advanced: the view shows it."""
        if event.get("event") in {"waiting", "again"}:
            super().said(job, event)

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        """A job ended."""
        if self._is_small or outcome.status != "done":
            super().ended(job, outcome)

    def tick(self) -> None:
        """Draw, four times a second; anew where the terminal has another size, for it has broken old lines in other places."""
        self._tell_skipped()
        moment = self._clock()
        if moment - self._drawn < _DRAWN_SECONDS:
            return
        self._drawn = moment
        if self._console.size != self._size:
            self._size = self._console.size
            self._live.stop()
            self._console.clear()
            self._live = self._new_live()
            self._live.start()
        self._live.update(LiveView(self._watch.snapshot(), height=max(3, self._size.height - 2)), refresh=True)


def make_reporter(watch: Watch) -> PlainReporter:
    """A view on a terminal, lines elsewhere. Rich honours NO_COLOR."""
    console = Console(stderr=True)
    return (LiveReporter if console.is_terminal else PlainReporter)(console, watch)

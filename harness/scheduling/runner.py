"""Runs the jobs of a plan by an executor: order, tries, requests to stop, and what everybody hears of it."""

from __future__ import annotations

import heapq
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from harness.planning.plan import PlannedJob
from harness.runs.failures import reason_of
from harness.runs.job_spec import DONE, STOPPED
from harness.scheduling.executor import TRIES, Attempt, BaseExecutor, Detached, Ended, Said
from harness.scheduling.hand_over import HandOver
from harness.scheduling.observer import Observer
from harness.scheduling.outcome import Outcome
from harness.scheduling.scheduler import Scheduler, Task

_DELAY = 2.0  # seconds before the second try; five times as many before each later one
_WAIT = 0.1  # seconds that an executor waits for news at most
_FAIL_FAST = "--fail-fast: another job failed"
_MINUTES = 1.0  # of a job of which nothing is known


class Runner:
    """Runs jobs, each after what it needs.

    Args:
        executor: Where they run; it is opened and closed here.
        observer: Who hears of them.
        jobs: The most jobs at once; None for as many as there is room for.
        fail_fast: Start nothing more after the first failure.
        tries: How often a job is tried whose failure may pass.
        delay: Seconds before the second try.
    """

    def __init__(
        self,
        executor: BaseExecutor,
        observer: Observer,
        *,
        jobs: int | None = None,
        fail_fast: bool = False,
        tries: int = TRIES,
        delay: float = _DELAY,
    ) -> None:
        self._executor, self._observer = executor, observer
        self._jobs, self._fail_fast, self._tries, self._delay = jobs, fail_fast, tries, delay
        self._planned: dict[str, PlannedJob] = {}
        self._attempts: dict[str, Attempt] = {}  # the last of each job
        self._outcomes: dict[str, Outcome] = {}
        self._later: list[tuple[float, str]] = []  # when a job is tried again
        self._running: set[str] = set()
        self._requests = 0  # to stop: 1 at the next checkpoint, 2 now
        self._told = 0
        self._taken_back = False

    def run(self, planned: Sequence[PlannedJob]) -> dict[str, Outcome]:
        """Run the jobs, given in an order in which each comes after what it needs; the outcome of each by its id,
        except those of an executor that left them to its queue.

        Raises:
            KeyboardInterrupt: After SIGINT or SIGTERM, once all running jobs have ended at their next checkpoint; after a second one,
                once they have been ended. What they did stays.
        """
        self._planned = {job.id: job for job in planned}
        with _asking_to_stop(self._ask):
            try:
                self._executor.open()
                self._observer.opened(planned)
                self._schedule = self._scheduler(planned)
                for key in self._executor.adopt(planned):
                    self._begin(Attempt(self._planned[key]))
                while self._is_going_on():
                    self._step()
                if self._requests:
                    self._give_up("the run was ended before its turn")
            except Detached:
                pass  # what has no outcome goes on without us
            finally:
                self._executor.close()
                self._observer.closed(self._outcomes)
        if self._requests:
            raise KeyboardInterrupt
        return self._outcomes

    def _scheduler(self, planned: Sequence[PlannedJob]) -> Scheduler | HandOver:
        if self._executor.takes_dependencies:
            return HandOver({job.id: job.needs for job in planned})
        tasks = [Task(job.id, job.needs, job.resources, 60 * (job.resources.minutes or _MINUTES)) for job in planned]
        return Scheduler(tasks, self._executor.places(), jobs=self._jobs, usual_cpus=self._executor.usual_cpus)

    def _is_going_on(self) -> bool:
        if self._requests == 2:
            return False
        return bool(self._running or (not self._requests and (self._schedule.waiting or self._later)))

    def _step(self) -> None:
        """Start what can start, hear what happened, pass on requests to stop."""
        while self._later and self._later[0][0] <= time.monotonic() and not self._requests:
            self._schedule.again(heapq.heappop(self._later)[1])
        if not self._requests:
            self._start_ready()
        for message in self._executor.poll(_WAIT):
            if message.job not in self._running:
                continue  # of a try that was given up
            if isinstance(message, Said):
                self._observer.said(self._planned[message.job], message.event)
            else:
                self._end(message)
        self._observer.tick()
        if self._told < self._requests:
            self._told = self._requests
            self._observer.stopping(now=self._requests > 1)
            for key in sorted(self._running):
                self._executor.stop(key, now=self._requests > 1)

    def _start_ready(self) -> None:
        if self._fail_fast and any(outcome.status == "failed" for outcome in self._outcomes.values()):
            self._give_up(_FAIL_FAST)
            if self._executor.takes_dependencies and not self._taken_back:
                self._taken_back = True  # what waits in the queue does not begin; what runs ends at its next checkpoint
                for key in sorted(self._running):
                    self._executor.stop(key, now=False)
            return
        for key, allocation in self._schedule.take(time.monotonic()):
            last, job = self._attempts.get(key), self._planned[key]
            after = tuple(need for need in job.needs if need in self._planned and need not in self._outcomes)
            attempt = Attempt(
                job,
                number=1 if last is None else last.number + 1,
                split_batches=1 if last is None else last.split_batches,
                allocation=allocation,
                after=after if self._executor.takes_dependencies else (),
            )
            try:
                self._executor.start(attempt)
            except OSError as error:
                self._attempts[key] = attempt
                self._fail(job, Outcome("failed", f"could not be started: {reason_of(error)}"))
            else:
                self._begin(attempt)

    def _begin(self, attempt: Attempt) -> None:
        key = attempt.job.id
        self._schedule.begun(key)
        self._attempts[key] = attempt
        self._running.add(key)
        self._observer.started(attempt)

    def _end(self, end: Ended) -> None:
        """A try has ended: well, at a checkpoint, or badly, and then perhaps not for good."""
        job, attempt = self._planned[end.job], self._attempts[end.job]
        self._running.discard(end.job)
        if end.code == DONE:
            self._finish(job, Outcome("done", seconds=end.seconds))
            self._schedule.done(end.job)
            return
        if self._taken_back and (end.code == STOPPED or end.code < 0):
            taken = (
                Outcome("stopped", end.reason, end.seconds) if end.code == STOPPED else Outcome("not_run", _FAIL_FAST)
            )
            self._finish(job, taken)
            self._not_run(self._schedule.drop(end.job), _FAIL_FAST)
            return
        if end.code == STOPPED and not self._requests:
            # Somebody else asked it to stop, a time limit for one: it resumes, and that is no failed try.
            self._attempts[end.job] = Attempt(job, attempt.number - 1, attempt.split_batches)
            self._try_again(job, end.reason, attempt.number, 0.0)
            return
        if end.code == STOPPED or (self._requests and end.code < 0):
            self._finish(job, Outcome("stopped", end.reason, end.seconds))
            self._schedule.ended(end.job)
            return
        split = end.kind == "out_of_memory" and job.step.splits_batches
        if (end.retry or split) and attempt.number < self._tries and not self._requests:
            if split:
                self._attempts[end.job] = Attempt(job, attempt.number, 2 * attempt.split_batches)
            delay = 0.0 if split else self._delay * 5 ** (attempt.number - 1)
            self._try_again(job, end.reason, attempt.number + 1, delay)
            return
        tries = f" ({attempt.number} tries)" if attempt.number > 1 else ""
        self._fail(job, Outcome("failed", f"{end.reason}{tries}", end.seconds))

    def _try_again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        for key in self._schedule.ended(job.id):  # handed over already, to run after it
            self._running.discard(key)
            self._executor.stop(key, now=True)
        job.fresh = False  # what this run has made of it is not made again
        heapq.heappush(self._later, (time.monotonic() + seconds, job.id))
        self._observer.again(job, reason, number, seconds)

    def _fail(self, job: PlannedJob, outcome: Outcome) -> None:
        """A job failed for good: what needs it will not run."""
        self._finish(job, outcome)
        self._not_run(self._schedule.drop(job.id), f"needs '{job.title}', which failed")

    def _not_run(self, keys: Sequence[str], reason: str) -> None:
        for key in keys:
            if key in self._running:
                self._running.discard(key)
                self._executor.stop(key, now=True)
            if key not in self._outcomes:
                self._finish(self._planned[key], Outcome("not_run", reason))

    def _give_up(self, reason: str) -> None:
        """Nothing more is started."""
        later = [key for _, key in self._later]
        self._later.clear()
        waiting = [key for key in self._planned if key in self._schedule.waiting or key in later]
        for key in waiting:
            self._schedule.waiting.discard(key)
        self._not_run(waiting, reason)

    def _finish(self, job: PlannedJob, outcome: Outcome) -> None:
        self._outcomes[job.id] = outcome
        self._observer.ended(job, outcome)

    def _ask(self) -> None:
        self._requests = min(2, self._requests + 1)


@contextmanager
def _asking_to_stop(ask: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM ask to stop, in the main thread; elsewhere signals are somebody else's."""

    def handler(_number: int, _frame: FrameType | None) -> None:
        ask()

    try:
        previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # no main thread
        previous = {}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)

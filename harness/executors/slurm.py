"""Jobs in a Slurm cluster whose nodes share the run's folder.

All jobs are handed over at once, each after what it needs (`afterok`), equal ones as arrays: the run goes on when this process is
gone, tries included (_slurm_task). The same command again watches what still waits or runs, and submits only what is not there.
Ctrl-C asks: what runs ends at its next checkpoint, what waits is taken out of the queue. A second one ends all. Where this process ends
in any other way, with its terminal or by `kill -9`, the jobs stay.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from harness.executors import _slurm_commands as slurm
from harness.executors._slurm_options import Options
from harness.executors._slurm_partition import check_jobs
from harness.executors._slurm_submitter import Submitter, answer
from harness.executors._slurm_watch import Watched
from harness.planning.plan import PlannedJob
from harness.runs.job_spec import DONE
from harness.scheduling.executor import Attempt, BaseExecutor, Detached, Ended, ExecutorOptions, Said, Settings

_log = logging.getLogger(__name__)
_PATIENCE = 60.0  # seconds for which Slurm may be silent when the run is to end


class Executor(BaseExecutor):
    """Hands jobs over to Slurm, and watches them."""

    Options: ClassVar[type[ExecutorOptions]] = Options
    takes_dependencies = True
    shared_disk = True

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        given = settings.options
        self._options = given if isinstance(given, Options) else Options()
        self._jobs = Submitter(settings, self._options)
        self._stops: dict[str, bool] = {}  # requests that Slurm has to be told: job -> now
        self._next_look = 0.0
        self._silent = False

    def check(self, jobs: Sequence[PlannedJob]) -> None:
        check_jobs(self._options, jobs, self.usual_cpus)

    def open(self) -> None:
        self._jobs.open(self.usual_cpus)

    def adopt(self, jobs: Sequence[PlannedJob]) -> set[str]:
        return self._jobs.adopt(jobs)

    def start(self, attempt: Attempt) -> None:
        self._stops.pop(attempt.job.id, None)
        self._jobs.add(attempt)

    def poll(self, seconds: float) -> Iterator[Said | Ended]:
        yield from self._pass_on_stops()
        yield from self._jobs.hand_over()
        if self._options.detach and not self._jobs.waiting and not self._jobs.unsure and not self._stops:
            print(
                f"{len(self._jobs.watched)} jobs are in Slurm's queue; the same command without detach watches them",
                file=sys.stderr,
            )
            raise Detached
        wait = self._next_look - time.monotonic()
        if wait > 0:
            time.sleep(min(seconds, wait))
            return
        self._next_look = time.monotonic() + self._options.poll
        yield from self._look()

    def _look(self) -> Iterator[Said | Ended]:
        """Look at the queue once, and at what every job has left."""
        try:
            queue, answered = slurm.squeue(), True
        except (slurm.Unanswered, slurm.Refused, slurm.QueueFull) as error:
            queue, answered = {}, False
            if not self._silent:
                _log.warning("Slurm does not answer (%s); its jobs go on, and so does this", error)
        self._silent = not answered
        if answered:
            self._jobs.settle_unsure(queue)
        settle = min(self._options.poll, self._options.late)
        for job, watched in list(self._jobs.watched.items()):
            if self._jobs.watched.get(job) is not watched:
                continue  # given up while we looked at others
            if answered:
                watched.queued = queue.get(watched.slurm)
                if watched.asked and watched.queued is not None and not watched.queued.has_ended:
                    self._stops.setdefault(job, watched.asked == "now")  # it may have begun in between
            state = watched.state()
            yield from watched.news(state)
            end = watched.end(state, answered=answered, now=time.monotonic(), settle=settle, late=self._options.late)
            if end is not None and not self._needs_end_first(watched, end):
                yield self._ended(watched, end)

    def _needs_end_first(self, watched: Watched, end: Ended) -> bool:
        """Whether a job ended badly whose needs are not known to have ended: their end says more."""
        needed = any(need in self._jobs.watched for need in watched.job.needs)
        return needed and end.code != DONE and not watched.asked

    def _ended(self, watched: Watched, end: Ended) -> Ended:
        self._jobs.ended(watched.job.id, done=end.code == DONE)
        if watched.queued is not None and watched.queued.state == "PENDING":
            self._jobs.cancel.append(watched.slurm)
        return end

    def stop(self, job: str, *, now: bool) -> None:
        self._stops[job] = now

    def _pass_on_stops(self) -> Iterator[Ended]:
        """Tell Slurm of requests to stop; what it does not hear is told again."""
        for job in [job for job in self._stops if job in self._jobs.waiting]:
            del self._stops[job], self._jobs.waiting[job]
            yield Ended(job, -signal.SIGTERM, "was not handed over yet")
        asked = {job: now for job, now in self._stops.items() if job in self._jobs.watched}
        ends = [*self._jobs.cancel]
        asks: list[str] = []
        for job, now in asked.items():
            watched = self._jobs.watched[job]
            watched.asked = "now" if now else "checkpoint"
            (ends if now else asks).append(watched.slurm)
            if not now:
                watched.stop_file.touch()
        try:
            if ends:
                slurm.scancel(ends)
            if asks:
                slurm.scancel(asks, "--state=PENDING")
                slurm.scancel(asks, "--state=RUNNING", "--signal=TERM", "--batch")
        except (slurm.Unanswered, slurm.QueueFull) as error:
            _log.warning("Slurm was not told to stop jobs yet (%s)", error)
            time.sleep(1)
            return
        self._jobs.cancel.clear()
        for job in asked:
            del self._stops[job]
        unsure = self._jobs.unsure
        self._stops = {job: now for job, now in self._stops.items() if job in unsure}

    def close(self) -> None:
        """Cancel what was asked to stop; all else stays in the queue."""
        deadline = time.monotonic() + _PATIENCE
        for job, watched in self._jobs.watched.items():
            if watched.asked:
                self._stops[job] = True
        while (self._stops or self._jobs.cancel) and time.monotonic() < deadline:
            if self._jobs.unsure:
                self._jobs.settle_unsure(answer(slurm.squeue))
            list(self._pass_on_stops())
        left = [
            *self._jobs.cancel,
            *(self._jobs.watched[job].slurm for job in self._stops if job in self._jobs.watched),
        ]
        if left:
            print(f"Slurm does not answer, and these jobs go on: scancel {' '.join(left)}", file=sys.stderr)

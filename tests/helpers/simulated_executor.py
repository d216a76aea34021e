"""An executor whose jobs only take time on a clock of its own, and end as a test says."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from harness.planning.plan import PlannedJob
from harness.runs.job_spec import DONE, STOPPED
from harness.scheduling.executor import Attempt, BaseExecutor, Ended, Place, Said, Settings


class SimulatedExecutor(BaseExecutor):
    """Jobs end in the order of their times. `ends(attempt)` says how a try ends; `seconds(job)` how long it takes."""

    def __init__(
        self,
        settings: Settings,
        ends: Callable[[Attempt], Ended],
        seconds: Callable[[PlannedJob], float] = lambda job: 1.0,
        places: Sequence[Place] | None = (Place("here", 2, 0, 10**12),),
        adopted: Sequence[str] = (),
    ) -> None:
        super().__init__(settings)
        self._ends, self._seconds, self._places, self._adopted = ends, seconds, places, adopted
        self.now = 0.0
        self.most = 0  # jobs at once
        self.started: list[tuple[str, int]] = []
        self.attempts: list[Attempt] = []
        self.stopped: list[tuple[str, bool]] = []
        self.is_open = False
        self._asked: list[str] = []
        self.on_poll: Callable[[], None] = lambda: None
        self._running: dict[str, Attempt] = {}
        self._queue: list[tuple[float, str]] = []

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def places(self) -> list[Place] | None:
        return None if self._places is None else list(self._places)

    def adopt(self, jobs: Sequence[PlannedJob]) -> set[str]:
        for job in jobs:
            if job.id in self._adopted:
                self._run(Attempt(job))
        return set(self._adopted)

    def start(self, attempt: Attempt) -> None:
        self.started.append((attempt.job.id, attempt.number))
        self.attempts.append(attempt)
        self._run(attempt)

    def _run(self, attempt: Attempt) -> None:
        key = attempt.job.id
        self._running[key] = attempt
        self.most = max(self.most, len(self._running))
        heapq.heappush(self._queue, (self.now + self._seconds(attempt.job), key))

    def poll(self, seconds: float) -> Iterator[Said | Ended]:
        self.on_poll()
        for key in list(self._asked):
            if self._running.pop(key, None) is None:
                continue
            yield Ended(key, STOPPED, "stopped at step 3")
        ready = [
            (end, key)
            for end, key in sorted(self._queue)
            if key in self._running and not set(self._running[key].after) & self._running.keys()
        ]
        if ready:
            self.now, key = ready[0]
            self._queue.remove(ready[0])
            yield self._ends(self._running.pop(key))

    def stop(self, job: str, *, now: bool) -> None:
        self.stopped.append((job, now))
        if now:
            self._running.pop(job, None)
        else:
            self._asked.append(job)


def well(attempt: Attempt) -> Ended:
    """The end of a job that does its work."""
    return Ended(attempt.job.id, DONE, seconds=1.0)

"""What jobs say through their state files, for executors whose jobs have no pipe to the harness: a queue, another machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from harness.runs.job_state import NEWS, JobState
from harness.scheduling.executor import Said


class StateReader:
    """Reads state files and says what is new in them, in the words of a job that has a pipe.

    Args:
        root: The folder of the run.
        every: Seconds between two looks at one job.
        clock: Seconds that go on steadily.
    """

    def __init__(self, root: Path, every: float = NEWS, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._every, self._clock = root, every, clock
        self._seen: dict[str, JobState] = {}
        self._looked: dict[str, float] = {}

    def state(self, job: str, attempt: int | None = None) -> JobState | None:
        """The state of a job now; None where it has none, or one of another attempt than asked for."""
        state = JobState.read(self._root, job)
        return state if state is not None and attempt in (None, state.attempt) else None

    def said(self, jobs: Iterable[str]) -> Iterator[Said]:
        """What these running jobs have said since they were last asked about; each is looked at every two seconds."""
        moment = self._clock()
        for job in jobs:
            if moment - self._looked.get(job, float("-inf")) < self._every:
                continue
            self._looked[job] = moment
            state, before = JobState.read(self._root, job), self._seen.get(job)
            if state is None or (before is not None and (before.pid, before.beat) == (state.pid, state.beat)):
                continue
            self._seen[job] = state
            if before is None or before.state != state.state or before.pid != state.pid:
                if state.state == "running":
                    yield Said(job, {"event": "started", "host": state.host, "devices": state.devices})
                elif state.state == "waiting":
                    yield Said(job, {"event": "waiting"})
            if state.state != "running":
                continue
            if state.done is not None:
                progress = {"stage": state.stage, "done": state.done, "total": state.total}
                yield Said(job, {"event": "progress", **progress})
            used = {"memory": state.memory, "device_memory": state.device_memory, "device_use": state.device_use}
            yield Said(job, {"event": "metrics", "metrics": state.metrics, **used})

    def forget(self, job: str) -> None:
        """A try has ended."""
        self._seen.pop(job, None)
        self._looked.pop(job, None)

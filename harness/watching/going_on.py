"""Whether jobs of a run may still write, asked often and cheaply however large the run is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.runs.job_state import JobState
from harness.runs.which_process import lives
from harness.scheduling.event_log import EventReader
from harness.watching.liveness import living

_AT_WORK = {"starting", "waiting", "running"}
_LOOK, _LOOK_FOR_HARNESSES = 1.0, 5.0  # seconds between two looks
_SILENT = 60.0


class GoingOn:
    """Whether any of some jobs runs or will run.

    Args:
        root: The folder of the run.
        jobs: Their ids.
        clock: Seconds that go on steadily.
    """

    def __init__(self, root: Path, jobs: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._jobs, self._clock = root, set(jobs), clock
        self._events = EventReader(root, without=("progress", "running"))
        self._ended: dict[str, set[str]] = {}  # by the id of a harness process, the jobs that have ended for good
        self._harnesses: dict[str, set[str]] = {}  # of each living one, those of our jobs that it has to do
        self._looked = self._looked_for_harnesses = float("-inf")
        self._answer = False

    def __call__(self) -> bool:
        """Whether more may come."""
        moment = self._clock()
        if moment - self._looked >= _LOOK:
            self._looked = moment
            self._answer = self._look(moment)
        return self._answer

    def _look(self, moment: float) -> bool:
        if moment - self._looked_for_harnesses >= _LOOK_FOR_HARNESSES:
            self._looked_for_harnesses = moment
            found = living(self._root)
            self._harnesses = {process.run: self._jobs & {job.id for job in process.jobs} for _, process in found}
        for event in self._events.new():
            if event["event"] == "ended":
                self._ended.setdefault(str(event.get("run")), set()).add(str(event.get("job")))
        if any(jobs - self._ended.get(run, set()) for run, jobs in self._harnesses.items()):
            return True
        return any(map(self._runs, self._jobs))

    def _runs(self, job: str) -> bool:
        state = JobState.read(self._root, job)
        if state is None or state.state not in _AT_WORK:
            return False
        known = lives(state.machine, state.pid, state.born)
        if known is not None:
            return known
        try:
            return time.time() - JobState.path(self._root, job).stat().st_mtime < _SILENT
        except OSError:
            return False

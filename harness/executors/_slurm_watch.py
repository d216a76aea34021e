"""What is known of a job that was handed over: from its node's files, from Slurm's queue, and from what it has made.

The queue alone decides nothing. It forgets jobs after minutes, and says COMPLETED of a job whose files have not arrived here yet.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.executors._slurm_commands import HELD, Queued
from harness.executors._slurm_submission import TaskState, read_state
from harness.planning.plan import PlannedJob
from harness.runs.job_spec import DONE, FAILED, MAY_PASS, STOPPED
from harness.runs.job_state import JobState
from harness.runs.store import Store
from harness.scheduling.executor import Ended, Said
from harness.scheduling.reasons import failure_reason, last_lines

_LOST = "its node was lost, and Slurm did not start it again"
_REASONS = {  # of states in which nothing more is known
    "TIMEOUT": "its time in Slurm was over before its next checkpoint; fix: a longer --executor-option time=MINUTES",
    "DEADLINE": "its deadline in Slurm was over",
    "NODE_FAIL": _LOST,
    "BOOT_FAIL": _LOST,
    "PREEMPTED": "another job took its place, and Slurm did not start it again",
    "REVOKED": _LOST,
}
_TOO_MUCH_MEMORY = (
    "took more memory than it had asked Slurm for; fix: more `resources: {{{kind}: {{memory: ...}}}}` in the matrix, "
    "or a larger --executor-option memory_margin"
)


@dataclass
class Watched:
    """A job in Slurm.

    Attributes:
        job: The job.
        folder, index: Its submission, and which of it.
        slurm: Its id.
        queued: As the queue last had it; None where it is not there any more.
        asked: `checkpoint` or `now` where it was asked to stop.
        gone: Since when it has ended, or is not there any more, by the monotonic clock.
    """

    job: PlannedJob
    folder: Path
    index: int
    slurm: str
    queued: Queued | None = None
    asked: str = ""
    gone: float | None = None
    _told: dict[str, Any] = field(default_factory=dict)

    @property
    def stop_file(self) -> Path:
        """Where it is told to end at its next checkpoint, if a signal does not reach it."""
        return self.folder / f"{self.index}.stop"

    def state(self) -> TaskState | None:
        """How it stands, as its node has written it."""
        return read_state(self.folder, self.index)

    def news(self, state: TaskState | None) -> Iterator[Said]:
        """What has changed since the last call; `state`: how it stands now."""
        if self.queued is not None and self.queued.state == "PENDING":
            if self._is_new("queued", self.queued.reason):
                yield Said(self.job.id, {"event": "queued", "reason": self.queued.reason, "slurm": self.slurm})
            if state is not None and state.state == "again" and self._is_new("again", state):
                yield Said(self.job.id, {"event": "again", "reason": state.reason})
        elif state is not None and state.state == "running":
            if self._is_new("started", (state.restart, state.failures)):
                yield Said(self.job.id, {"event": "started", "host": state.host, "slurm": self.slurm})
            yield from self._progress()

    def _progress(self) -> Iterator[Said]:
        """How far it is, by the file that its process writes."""
        said = JobState.read(self.job.root, self.job.id)
        if said is None:
            return
        if said.state == "waiting" and self._is_new("waiting", said.started):
            yield Said(self.job.id, {"event": "waiting"})
        done = {"stage": said.stage, "done": said.done, "total": said.total}
        if said.done is not None and self._is_new("progress", done):
            yield Said(self.job.id, {"event": "progress", **done})
        if said.metrics and self._is_new("metrics", said.metrics):
            yield Said(self.job.id, {"event": "metrics", "metrics": said.metrics})

    def _is_new(self, what: str, value: Any) -> bool:
        before, self._told[what] = self._told.get(what), value
        return before != value

    def end(self, state: TaskState | None, *, answered: bool, now: float, settle: float, late: float) -> Ended | None:
        """Its end, where that is certain.

        Args:
            state: How it stands, as its node has written it.
            answered: Whether Slurm said how its queue is; what is only not there is no end otherwise.
            now: By the monotonic clock.
            settle: Seconds for which the queue has to say that it ended, since what is put back may look so for a moment.
            late: Seconds for which a file of another machine may be missing here.
        """
        if state is not None and state.state == "ended" and state.final:
            return self._by_code(state)
        if not answered:
            return None
        is_held = self.queued is not None and self.queued.state == "PENDING" and HELD.search(self.queued.reason)
        if self.queued is not None and not self.queued.has_ended and not is_held:
            self.gone = None
            return None
        self.gone = now if self.gone is None else self.gone
        never_began = state is None and self.asked and self.queued is not None and self.queued.state == "CANCELLED"
        has_ended = state is not None and state.state == "ended"
        if not never_began and now - self.gone < (settle if has_ended else max(settle, late)):
            return None
        return self._without_end(state)

    def _by_code(self, state: TaskState) -> Ended:
        if state.code == DONE:
            return Ended(self.job.id, DONE, seconds=state.seconds)
        if state.code == STOPPED:
            return Ended(self.job.id, STOPPED, state.reason or "ended at a checkpoint", seconds=state.seconds)
        # A final end was tried as often as it may be, or is hopeless; that its kind is not told keeps the runner from trying it again.
        reason = failure_reason(self.job, state.code, state.reason)
        tries = f" ({state.failures} tries)" if state.failures > 1 else ""
        retry = not state.final and (state.code == MAY_PASS or state.code < 0)
        return Ended(self.job.id, state.code, f"{reason}{tries}", retry=retry, seconds=state.seconds)

    def _without_end(self, state: TaskState | None) -> Ended:
        """Slurm runs it no more, and it has left no final end."""
        seconds = state.seconds if state is not None else 0.0
        if self._is_made():
            return Ended(self.job.id, DONE, seconds=seconds)
        name = self.queued.state if self.queued is not None else ""
        if name == "CANCELLED" and not self.asked:
            return self._cancelled_elsewhere(seconds)
        if state is not None and state.state == "ended":
            return self._by_code(state)
        if name == "CANCELLED":
            reason = "taken out of the queue" if state is None else "ended before its next checkpoint"
            return Ended(self.job.id, -signal.SIGTERM, reason, seconds=seconds)
        if name == "OUT_OF_MEMORY":
            reason = _TOO_MUCH_MEMORY.format(kind=self.job.kind)
            return Ended(self.job.id, -signal.SIGKILL, reason, seconds=seconds)
        if name in _REASONS:
            return Ended(self.job.id, -signal.SIGTERM, _REASONS[name], retry=True, seconds=seconds)
        said = " ".join(last_lines(self.folder / f"{self.index}.out", 1)).strip()
        last = f"; last line of {self.folder / f'{self.index}.out'}: {said}" if said else ""
        if name == "FAILED" and state is None:  # before our part of the script
            return Ended(self.job.id, FAILED, f"its script in Slurm failed before the job began{last}", seconds=seconds)
        if name == "PENDING":
            assert self.queued is not None
            return Ended(
                self.job.id, MAY_PASS, f"Slurm holds it back: {self.queued.reason}", retry=True, seconds=seconds
            )
        what = f"Slurm says {name}" if name else "Slurm does not know it any more"
        return Ended(self.job.id, MAY_PASS, f"{what}, and it left no result{last}", retry=True, seconds=seconds)

    def _cancelled_elsewhere(self, seconds: float) -> Ended:
        assert self.queued is not None
        if self.queued.reason.startswith("Dependency"):
            return Ended(self.job.id, MAY_PASS, "what it needs did not end well in Slurm", retry=True, seconds=seconds)
        reason = f"cancelled in Slurm (job {self.slurm}); fix: the same command submits it again"
        return Ended(self.job.id, -signal.SIGTERM, reason, seconds=seconds)

    def _is_made(self) -> bool:
        """Whether its outputs are there; of a job that makes them again, that says nothing."""
        store = Store(self.job.root)
        return not self.job.fresh and all(store.output(each.folder).holds(each.made) for each in self.job.wanted)

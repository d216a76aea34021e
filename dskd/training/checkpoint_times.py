"""When the next checkpoint of a training is due. Nothing here imports torch.

A checkpoint that takes C seconds is written 20 C seconds after the one before, so that checkpoints take at most 1/21 of the time.
Young's formula (Communications of the ACM 17, 530, 1974) has √(2 C M) for a mean time M between kills, which nobody knows: 20 C is its choice for
M = 200 C. Where kills come so often that a start gets no further than the one before it, checkpoints come four times as often with
each such start, if need be after every step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_APART = 20.0  # times what a checkpoint takes
_SHORTEST = 1.0  # seconds
_FASTER = 4.0
# What a disk that others use too writes, in bytes a second; for the first checkpoint, before one has been measured.
_BYTES_PER_SECOND = 5e8


def expected_seconds(size: int) -> float:
    """What a checkpoint of so many bytes may take."""
    return size / _BYTES_PER_SECOND


class CheckpointTimes:
    """Tells after each step whether a checkpoint is due.

    Args:
        steps: A checkpoint after every so many steps, where it is given.
        seconds: One after so many seconds. Without either, the time follows from what a checkpoint takes.
        expected: Seconds that the first checkpoint may take.
        stalled: How many starts in a row got no further than the one before them.
        clock: Gives seconds.
    """

    def __init__(
        self,
        steps: int | None = None,
        seconds: float | None = None,
        *,
        expected: float = 0.0,
        stalled: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._steps, self._seconds = steps, seconds
        self._takes = expected
        self._faster = _FASTER ** min(stalled, 20)
        self._stalled = stalled > 0
        self._clock = clock
        self._last = clock()

    @property
    def interval(self) -> float:
        """Seconds from one checkpoint to the next; infinite where steps alone count."""
        by_cost = max(_SHORTEST, _APART * self._takes)
        without_seconds = by_cost if self._steps is None else math.inf
        chosen = without_seconds if self._seconds is None else self._seconds
        return min(chosen, by_cost) / self._faster if self._stalled else chosen

    def due_by_steps(self, step: int) -> bool:
        """Whether steps say so, which is the same in all processes."""
        return self._steps is not None and step % self._steps == 0

    def due_by_time(self) -> bool:
        """Whether the clock of this process says so."""
        return self._clock() - self._last >= self.interval

    def written(self, seconds: float) -> None:
        """A checkpoint has just been written, and took so long."""
        self._takes = seconds
        self._last = self._clock()

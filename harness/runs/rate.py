"""How fast something goes now: the mean over the last while, so that a slow start is soon forgotten."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable


class Rate:
    """Units a second of a count that grows.

    Args:
        window: Seconds over which the mean is taken.
        clock: Seconds that go on steadily.
    """

    def __init__(self, window: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window, self._clock = window, clock
        self._seen: deque[tuple[float, float]] = deque()

    def at(self, count: float) -> float | None:
        """The rate now that the count is this; None until half a second of it is known, and where the count began anew."""
        moment = self._clock()
        if self._seen and count < self._seen[-1][1]:
            self._seen.clear()
        # One point a second is enough, and the newest takes the place of the one before it.
        if len(self._seen) > 1 and moment - self._seen[-2][0] < 1.0:
            self._seen.pop()
        self._seen.append((moment, count))
        while len(self._seen) > 2 and self._seen[1][0] < moment - self._window:
            self._seen.popleft()
        (first, before), seconds = self._seen[0], moment - self._seen[0][0]
        return (count - before) / seconds if first < moment and seconds >= 0.5 else None

"""Batches that are read before their step comes, so that a teacher elsewhere answers them while the steps before are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any


class ReadAhead:
    """The batches of an iterator in its order; some of those that come later are begun already.

    Nothing is read of an epoch before it begins: the order of its batches is drawn then. So the first step of each epoch waits for
    its whole answer.
    """

    def __init__(self) -> None:
        self._iterator: Iterator[Any] | None = None
        self._read: deque[Any] = deque()

    def take(self, iterator: Iterator[Any], count: int, *, ahead: int, begin: Callable[[Any], None]) -> list[Any]:
        """The next `count` batches of an iterator, or as many as it has left.

        Args:
            iterator: Of an epoch. What was read of the one before is dropped when another comes.
            count: Of this step.
            ahead: How many more are read.
            begin: Called with each batch once, in their order, as it is read.
        """
        if iterator is not self._iterator:
            self._iterator, self._read = iterator, deque()
        for batch in islice(iterator, max(count + ahead - len(self._read), 0)):
            begin(batch)
            self._read.append(batch)
        return [self._read.popleft() for _ in range(min(count, len(self._read)))]

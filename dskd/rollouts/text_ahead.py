"""The student's text of several optimizer steps, written at once (`rollouts.staleness`).

A block of s + 1 steps is written by the weights as they are before its first. It ends early with the epoch, whose last batches are
read by then, and with the training. What is written for steps that are still to come is part of every checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from dskd.rollouts.rollouts import Rollouts, StepText


class TextAhead:
    """Hands out the rows of each step; with staleness 0 they are written when the step comes."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts
        self._written: dict[int, StepText] = {}  # by step
        self._read = True  # whether the batches that these texts take the place of were taken from the iterator

    def take(
        self, iterator: Iterator[Any], count: int, *, step: int, epoch: int, later: int, accumulated: int
    ) -> list[list[dict[str, Any]]]:
        """The rows of a step's micro-batches.

        Args:
            iterator: Over the batches of an epoch.
            count: Micro-batches of this step, or of what is left of the epoch.
            step: Counted from 1.
            epoch: Counted from 0.
            later: How many steps come after this one.
            accumulated: Micro-batches of each of those, but for an epoch's last.
        """
        if step not in self._written:
            batches = {step: list(islice(iterator, count))}
            for ahead in range(step + 1, step + 1 + min(self._rollouts.options.writes_ahead, later)):
                if not (own := list(islice(iterator, accumulated))):
                    break
                batches[ahead] = own
            self._written, self._read = self._rollouts.write(batches, epoch=epoch), True
        elif not self._read:
            for _ in islice(iterator, count):
                pass
        return self._rollouts.use(self._written.pop(step))

    def state(self) -> str:
        """What a training that goes on from here needs of this process."""
        return json.dumps({step: asdict(text) for step, text in self._written.items()})

    def load(self, state: str) -> None:
        """Go on from what `state` said."""
        self._written = {int(step): StepText(**text) for step, text in json.loads(state).items()}
        self._read = False

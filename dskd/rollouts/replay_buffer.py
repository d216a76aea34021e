"""When the student's text is written, drawn from a buffer, or left to the data: DistiLLM's adaptive schedule (docs/rollouts.md).

Everything here is the same in all processes: each example's own random numbers decide about it, and the buffer takes what all of
them wrote in a step in the order of the examples. The state is part of every checkpoint.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dskd.rollouts.options import ReplayOptions

Choice = Literal["data", "write", "replay"]


class Replay:
    """The buffer of the student's texts, as rows that are ready to be trained on, and the threshold; `steps`: T, of the training."""

    def __init__(self, options: ReplayOptions, share: float, steps: int = 0) -> None:
        self.options = options
        self.steps = steps
        self.adaptive = options.schedule == "adaptive"
        self.threshold = options.initial_threshold if self.adaptive else share
        self.validation_losses: list[float] = []
        self._reference: float | None = None
        self._validated: tuple[int, int] | None = None  # (step, epoch) of the last validation
        self._buffer: deque[dict[str, Any]] = deque(maxlen=options.capacity)

    def __len__(self) -> int:
        return len(self._buffer)

    def choose(self, number: float, step: int) -> Choice:
        """What an example gets whose random number, uniform in [0, 1), is `number`, at `step`, counted from 1."""
        if number >= self.threshold:
            return "data"
        if not self.adaptive or len(self) < self.options.capacity:
            return "write"
        progress = step / self.steps
        new_part = {"decreasing": 1 - progress, "constant": 0.5, "increasing": progress}[self.options.newly_written]
        return "write" if number < self.threshold * new_part else "replay"

    def keep(self, rows: Iterable[dict[str, Any]]) -> None:
        """Put rows that were written in a step, of all processes, into the buffer, in the order of their examples."""
        self._buffer.extend(sorted(rows, key=lambda row: row["example"]))

    def draw(self, number: float) -> dict[str, Any] | None:
        """A row of the buffer, each as likely as any other for a number uniform in [0, 1); None where it is empty."""
        return self._buffer[int(number * len(self._buffer))] if self._buffer else None

    def validation_is_due(self, step: int, epoch: int) -> bool:
        """Whether the loss on the held-out examples is to be measured before step `step`, counted from 1, of `epoch`."""
        if not self.adaptive:
            return False
        if self._validated is None:
            return True
        every = self.options.validation_steps
        return epoch != self._validated[1] if every is None else step - self._validated[0] >= every

    def validated(self, loss: float, step: int, epoch: int) -> None:
        """Raise the threshold where the validation loss has risen by so much."""
        self._validated = step, epoch
        self.validation_losses.append(loss)
        if self._reference is None:
            self._reference = loss
        elif loss >= self._reference + self.options.loss_tolerance:
            self.threshold = min(1.0, self.threshold + self.options.threshold_increase)
            self._reference = loss
        elif self.options.loss_reference == "lowest":
            self._reference = min(self._reference, loss)

    def save(self, path: Path) -> None:
        """Write all that a training which goes on from here needs to know."""
        state = {
            "threshold": self.threshold,
            "reference": self._reference,
            "validated": self._validated,
            "validation_losses": self.validation_losses,
            "buffer": list(self._buffer),
        }
        path.write_text(json.dumps(state), encoding="utf-8")

    def load(self, path: Path) -> None:
        """Go on from what `save` wrote."""
        state = json.loads(path.read_text(encoding="utf-8"))
        self.threshold, self._reference = state["threshold"], state["reference"]
        self._validated = None if state["validated"] is None else tuple(state["validated"])
        self.validation_losses = state["validation_losses"]
        self._buffer = deque(state["buffer"], maxlen=self.options.capacity)


def held_out(examples: int, share: float) -> list[int]:
    """Numbers of the examples that are kept for validation, ascending: the same for every seed, at least one, never all."""
    count = min(max(round(share * examples), 1), examples - 1)
    # Any number but a seed that somebody would draw the order of training from.
    order = np.random.default_rng(np.random.SeedSequence([0x5EED, examples])).permutation(examples)
    return sorted(order[:count].tolist())

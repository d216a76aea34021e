"""What a teacher is for a training: something that knows its outputs at the labelled tokens of a batch (docs/served-teachers.md).

A live teacher runs in the training, a cached one is read from a folder, a served one stands behind an address. Each gives one kind
of outputs (`dskd.teachers.options.OUTPUTS`): hidden states, the most probable tokens, or the log-probability of the text.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.modeling.lm_head import Head


class Clock:
    """Seconds spent; on a GPU measured there, and read only when they are asked for."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self, device: torch.device) -> Iterator[None]:
        if device.type == "cuda":
            events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            events[0].record()
            yield
            events[1].record()
            self._events.append(events)
            while self._events[0][1].query() and len(self._events) > 1:  # asks whether it is done, does not wait
                self._add()
        else:
            start = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - start

    def _add(self) -> None:
        first, last = self._events.pop(0)
        last.synchronize()
        self._seconds += first.elapsed_time(last) / 1000

    def read(self) -> float:
        while self._events:
            self._add()
        return self._seconds


class Teacher(ABC):
    """One way to know the teacher's outputs.

    Attributes:
        head: The teacher's output head without gradient; None where it gives log-probabilities and not hidden states.
        embedding: [vocabulary, hidden], its input embedding without gradient; None where it is not known.
        probe: What was found out about it before the first step (dskd.teachers.probe); None where that is not needed.
        ahead: Optimizer steps whose batches it is asked about before theirs comes; 0 for one that answers at once.
    """

    head: Head | None
    embedding: Tensor | None = None
    probe: dict[str, Any] | None = None
    ahead: int = 0

    def __init__(self) -> None:
        self._clock = Clock()

    @property
    def seconds(self) -> float:
        """Time spent in `fetch` so far."""
        return self._clock.read()

    @property
    def examples(self) -> int:
        """Responses that the teacher itself was asked about so far; counts one again when it comes again."""
        return 0

    def request(self, batch: TokenBatch) -> None:  # noqa: B027 - a teacher that answers at once has nothing to begin
        """Begin to find the outputs for a batch that `fetch` will be called with, while it is still on the CPU.

        What is under way is kept in `batch.teacher.requested`, which travels with the batch.
        """

    def close(self) -> None:  # noqa: B027
        """Give back connections and processes."""

    def figures(self) -> dict[str, Any]:
        """What a report says of it besides its time, such as bytes that came over a network; empty where there is nothing."""
        return {}

    def fetch(self, batch: TokenBatch) -> TokenBatch:
        """The batch with the teacher's outputs at its labelled tokens.

        These are `hidden`, of a cache also `predictions`; or `top_k_*`; or `label_log_probabilities`.
        """
        return replace(batch, teacher=self._fetch(batch.teacher))

    @abstractmethod
    def _fetch(self, side: SideTokens) -> SideTokens: ...

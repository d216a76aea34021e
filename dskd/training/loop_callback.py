"""What happens after each step of a training: progress is told, checkpoints are written when they are due, a stop request is heard."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from dskd.training.checkpoint_times import CheckpointTimes

if TYPE_CHECKING:
    from dskd.training.trainer import DistillationTrainer

Progress = Callable[[dict[str, Any]], None]

_AGREE_SECONDS = 0.25  # between two times that several processes ask each other


class LoopCallback(TrainerCallback):
    """Decides after each step, in the same way in all processes, what comes next.

    Args:
        trainer: The training.
        times: When checkpoints are due.
        progress: Told of each step, and of what is logged.
        stop: Whether the training has been asked to stop. Its checkpoint is written at the end of the step.
        checkpoint: What the training goes on from.
        share: The share of the steps after which it ends, with a checkpoint.

    Attributes:
        stopped: Whether it stops because it was asked to.
    """

    def __init__(
        self,
        trainer: DistillationTrainer,
        times: CheckpointTimes,
        *,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
        checkpoint: Path | None = None,
        share: float = 1.0,
    ) -> None:
        self.stopped = False
        self._share = share
        self._trainer = trainer
        self._times = times
        self._progress = progress or (lambda _: None)
        self._stop = stop or (lambda: False)
        self._checkpoint = checkpoint
        self._asked_step, self._asked_at, self._next = 0, time.perf_counter(), 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        loop = self._trainer.loop
        if self._checkpoint is not None:
            loop.load(self._checkpoint)
        loop.begin()
        self._asked_step, self._asked_at = state.global_step, time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, last = state.global_step, state.global_step >= state.max_steps
        if last:
            control.should_log = True
        # Nothing is logged here that the whole training would not log.
        ends = step >= steps_of_share(self._share, state.max_steps)
        save, stop = self._agreed(step)
        self.stopped = stop and not ends
        if save or self.stopped or (ends and not last) or self._times.due_by_steps(step):
            control.should_save = True
        if self.stopped or ends:
            control.should_training_stop = True
        # Of the other processes it is not asked: they have about as many.
        tokens = self._trainer.tokens_seen * self._trainer.accelerator.num_processes
        self._progress({"step": step, "steps": state.max_steps, "tokens": tokens})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._progress({"step": state.global_step, "steps": state.max_steps, **logs})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._times.written(self._trainer.checkpoint_seconds)

    def _agreed(self, step: int) -> tuple[bool, bool]:
        """(whether the clock asks for a checkpoint, whether any process was asked to stop).

        Of several processes the first one's clock counts. They ask each other a few times a second, so the first says after which
        step they will do so again; where steps are slow, that is the next one.
        """
        trainer = self._trainer
        if trainer.accelerator.num_processes == 1:
            return self._times.due_by_time(), self._stop()
        if step < self._next:
            return False, False
        told = torch.zeros(3, dtype=torch.int64, device=trainer.args.device)
        told[1] = int(self._stop())
        if trainer.args.process_index == 0:
            now = time.perf_counter()
            each = (now - self._asked_at) / max(step - self._asked_step, 1)
            told[0], told[2] = int(self._times.due_by_time()), max(int(_AGREE_SECONDS / max(each, 1e-6)), 1)
            self._asked_step, self._asked_at = step, now
        save, stop, steps = trainer.accelerator.reduce(told, "sum").tolist()
        self._next = step + steps
        return save > 0, stop > 0


def steps_of_share(share: float, steps: int) -> int:
    """The steps that a share of them is, rounded up."""
    return min(math.ceil(share * steps - 1e-9), steps)  # 0.1 × 30 is 3.0000000000000004

"""What a checkpoint has to know of the loop itself, so that logged steps and the report do not depend on where checkpoints fell.

transformers keeps the state of optimizer, schedule, random numbers and the logged steps. What has been added up since the last logged
step is in no file of its; nor is what the report counts. Each process has a file of its own.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class Earlier:
    """What earlier starts of a training have cost, each up to the checkpoint that the next went on from.

    Attributes:
        seconds: Of the loop.
        teacher_seconds, teacher_examples: Of the teacher, or of all together.
        seconds_by_teacher: Of each of several.
        figures: Of a served teacher (`Teacher.figures`), or of each of several that is.
        device_memory: The peak of a GPU, in bytes.
    """

    seconds: float = 0.0
    teacher_seconds: float = 0.0
    teacher_examples: int = 0
    seconds_by_teacher: dict[str, float] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    device_memory: int = 0


class LoopState:
    """The state of the loop of a `DistillationTrainer`, to and from the files of a checkpoint."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self.earlier = Earlier()
        self._started = time.perf_counter()

    def begin(self) -> None:
        """Count seconds from now on."""
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Of the loop, in all starts."""
        return self.earlier.seconds + time.perf_counter() - self._started

    def total(self) -> Earlier:
        """What all starts have cost by now."""
        teacher, before = self._trainer.model.teacher, self.earlier
        held = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        total = Earlier(self.seconds, before.teacher_seconds, before.teacher_examples)
        total.device_memory = max(before.device_memory, held)
        if teacher is not None:
            total.teacher_seconds += teacher.seconds
            total.teacher_examples += teacher.examples
            own = {name: each.seconds for name, each in getattr(teacher, "by_name", {}).items()}
            total.seconds_by_teacher = _added(before.seconds_by_teacher, own)
            total.figures = _added(before.figures, teacher.figures())
        return total

    def save(self, folder: Path) -> None:
        """Write this process's file of a checkpoint."""
        trainer, rollouts = self._trainer, self._trainer.rollouts
        state = {
            "loss": trainer._tr_loss.cpu(),
            "last_logged": trainer._globalstep_last_logged,
            "terms": _on_cpu(trainer.terms_seen),
            "metrics": _on_cpu(trainer.metrics_seen),
            "tokens": trainer.tokens_seen,
            "places": trainer.places_seen,
            "rollouts": None if rollouts is None else [dict(rollouts.counts), rollouts.seconds],
            "text_ahead": None if rollouts is None else trainer.text_ahead.state(),
            "guards": None if rollouts is None else rollouts.guards.state(),
            "cost": vars(self.total()),
        }
        torch.save(state, folder / loop_file(trainer.args.process_index, trainer.args.world_size))

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote; call it once the trainer has set its own sums to zero."""
        trainer, rollouts, device = self._trainer, self._trainer.rollouts, self._trainer.args.device
        path = folder / loop_file(trainer.args.process_index, trainer.args.world_size)
        state = torch.load(path, map_location="cpu", weights_only=True)
        trainer._tr_loss = state["loss"].to(device)
        trainer._globalstep_last_logged = state["last_logged"]
        trainer.terms_seen = {name: [part.to(device) for part in both] for name, both in state["terms"].items()}
        trainer.metrics_seen = {name: [part.to(device) for part in both] for name, both in state["metrics"].items()}
        trainer.tokens_seen, trainer.places_seen = state["tokens"], state["places"]
        if rollouts is not None:
            rollouts.counts, rollouts.seconds = Counter(state["rollouts"][0]), state["rollouts"][1]
            if "guards" in state:  # not in checkpoints that are older than both
                trainer.text_ahead.load(state["text_ahead"])
                rollouts.guards.load(state["guards"])
        self.earlier = Earlier(**state["cost"])


def loop_file(process: int, processes: int) -> str:
    """The name of a process's file in a checkpoint, in the manner of transformers' random states."""
    return "loop_state.pth" if processes == 1 else f"loop_state_{process}.pth"


def _on_cpu(sums: dict[str, list[torch.Tensor]]) -> dict[str, list[torch.Tensor]]:
    return {name: [part.cpu() for part in both] for name, both in sums.items()}


def _added(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Numbers added up by name, also of names inside names."""
    return {
        name: _added(before.get(name, {}), value) if isinstance(value, dict) else before.get(name, 0) + value
        for name, value in now.items()
    }

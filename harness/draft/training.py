"""The training options of a draft: what fits into the memory of this machine, with the reason of each."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dskd.compatibility import LIVE
from dskd.training.options import TrainingOptions
from harness.costs.formulas import bytes_per_number, training_work
from harness.draft.machine import Machine
from harness.draft.pair import DraftedPair
from harness.draft.sample import DraftedLengths

EXAMPLES_A_STEP = 32
_MEMORY = 0.8  # of what is there: estimates leave things out
_DISK = 0.3
_LARGE, _MIDDLE = 1_000_000_000, 200_000_000  # parameters
_WARMUP = 0.03


@dataclass(frozen=True)
class DraftedTraining:
    """How students are trained.

    Attributes:
        options: As a matrix has them beside `data`.
        steps: That they amount to.
        bytes: Memory that a training is estimated to take; None where a shape is not known.
        fits: Whether it fits.
        teacher_outputs: `hidden_states` or `live`.
        cache: Bytes of a cache of hidden states.
    """

    options: dict[str, Any]
    steps: int
    bytes: float | None
    fits: bool
    teacher_outputs: str
    cache: float | None


def choose_training(pair: DraftedPair, lengths: DraftedLengths, machine: Machine, epochs: float) -> DraftedTraining:
    """The options of a training that fits into the memory, and whether the teacher's outputs are cached."""
    dtype = "bfloat16" if machine.has_gpu else "float32"
    width = pair.teacher.shape.hidden if pair.teacher.shape is not None else None
    labels = lengths.means.examples * lengths.means.response_tokens
    cache = None if width is None else labels * width * bytes_per_number(dtype)
    outputs = "hidden_states" if cache is not None and cache <= _DISK * machine.disk else LIVE
    chosen: dict[str, Any] = {}
    needed: float | None = None
    for chosen in _candidates():
        needed = _memory(pair, lengths, machine, {**chosen, "dtype": dtype}, live=outputs == LIVE)
        if needed is None or needed <= _MEMORY * machine.memory:
            break
    steps = max(1, math.ceil(epochs * lengths.means.examples / EXAMPLES_A_STEP))
    parameters = pair.student.shape.parameters if pair.student.shape is not None else _MIDDLE
    rate = 2e-5 if parameters >= _LARGE else 1e-4 if parameters >= _MIDDLE else 5e-4
    options = {
        "epochs": int(epochs) if epochs.is_integer() else epochs,
        **chosen,
        "learning_rate": 2e-4 if "lora" in chosen else rate,
        "warmup_steps": math.ceil(_WARMUP * steps),
        "max_length": lengths.max_length,
        **({"dtype": dtype} if machine.has_gpu else {}),
    }
    fits = needed is None or needed <= _MEMORY * machine.memory
    return DraftedTraining(options, steps, needed, fits, outputs, cache)


def _candidates() -> Iterator[dict[str, Any]]:
    """Sizes of a batch, the fastest first; then what saves memory for time; last an adapter."""
    for size in (32, 16, 8, 4):
        yield _batch(size)
    for size in (16, 8, 4, 2, 1):
        yield _batch(size) | {"gradient_checkpointing": True}
    for size in (4, 2, 1):
        yield _batch(size) | {"gradient_checkpointing": True, "lora": {"rank": 16}}


def _batch(size: int) -> dict[str, Any]:
    return {"batch_size": size, "gradient_accumulation_steps": EXAMPLES_A_STEP // size}


def _memory(
    pair: DraftedPair, lengths: DraftedLengths, machine: Machine, options: dict[str, Any], *, live: bool
) -> float | None:
    """Bytes of a training by a method with projectors, which take the most; None where a shape is not known."""
    student, teacher = pair.student.shape, pair.teacher.shape
    if student is None or teacher is None:
        return None
    whole = TrainingOptions.model_validate({**options, "steps": 1, "max_length": lengths.max_length}).model_dump()
    work = training_work(
        "train", "", machine.assumed, student, whole, lengths.means, teacher=teacher, live=live, dual=True
    )
    return work.bytes

"""What jobs need, from shapes: main memory, GPUs and their memory, and time.

Main memory holds the libraries and each model once, on its way to a GPU. On a machine without GPUs it also holds what would be in
theirs (`Resources.on_cpus`). Times are those of the assumed GPU of `harness plan --estimate`; they order jobs and are no promise.
docs/gpu.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.costs.formulas import Lengths, bytes_per_number
from harness.costs.model_shapes import Shape
from harness.costs.resources import BASE_MEMORY, Resources
from harness.costs.work import Work

START_MINUTES = 0.25  # of a process that imports its libraries and loads a small model
UNKNOWN_LENGTHS = Lengths(1, 128, 128)  # where a training set is not here: only the share of labelled tokens counts
_PROMPT_TOKENS = 512  # of an item of a task, which is not read to find out
_ITEMS = 1000  # of a task without a limit
_BATCH = 64  # sequences at once, by default
_BYTES_PER_SECOND = 1.5e12  # at which an A100 reads weights: each new token of a batch reads all of them
_LEAST_STEP, _LEAST_TOKEN = (
    0.02,
    0.01,
)  # seconds of an optimizer step and of a batch's next token, however small the model is
_ONE_PASS_TOKENS = 4096  # of a batch of a teacher that reads a training set


@dataclass(frozen=True)
class Generation:
    """What is generated: `items` answers of at most `new_tokens`; 0 where texts are only read."""

    items: int | None
    new_tokens: int


def weight_bytes(shape: Shape, dtype: str) -> int:
    """Bytes of a model's weights."""
    return shape.parameters * bytes_per_number(dtype)


def unknown_needs(gpus: float, processes: int = 1) -> Resources:
    """What is taken for a job with a model of unknown shape: that of a small one."""
    return Resources(gpus=gpus, memory=BASE_MEMORY * processes)


def training_needs(
    work: Sequence[Work], loaded: Iterable[float], processes: int = 1, *, timed: bool = True
) -> Resources:
    """What a training needs, or several one after the other.

    Args:
        work: of each training.
        loaded: bytes of each model as it is loaded: the student's in float32.
        processes: of a training, each with a GPU.
        timed: whether the times of `work` are known.
    """
    seconds = sum(max(3600 * each.gpu_hours / processes, (each.steps or 0) * _LEAST_STEP) for each in work)
    minutes = START_MINUTES * len(work) + seconds / 60
    return Resources(
        gpus=processes,
        memory=processes * (BASE_MEMORY + int(sum(loaded))),
        device_memory=int(max(each.bytes for each in work)),
        minutes=minutes if timed else None,
    )


def pass_needs(work: Work, shape: Shape, dtype: str, gpus: int = 1, *, timed: bool = True) -> Resources:
    """What a teacher that reads a training set once needs: its weights, and a batch's activations and logits."""
    number = bytes_per_number(dtype)
    batch = _ONE_PASS_TOKENS * (shape.hidden * 8 + 2 * shape.intermediate) * number
    logits = _ONE_PASS_TOKENS // 4 * shape.vocabulary * 4
    weights = weight_bytes(shape, dtype)
    return Resources(
        gpus=gpus,
        memory=BASE_MEMORY + weights,
        device_memory=weights // gpus + batch + logits,
        minutes=START_MINUTES + 60 * work.gpu_hours / gpus if timed else None,
    )


def generation_needs(
    shape: Shape,
    dtype: str,
    asked: Sequence[Generation],
    *,
    parts: int = 1,
    tensor_parallel: int = 1,
    batch: int | None = None,
) -> Resources:
    """What generation needs: weights, keys and values of a batch, and its logits.

    Args:
        asked: of each task; prompts are taken to have 512 tokens, and a task without a limit 1,000 items.
        parts: processes with a model each; the one that started them has none.
        tensor_parallel: GPUs of each.
        batch: sequences at once, 64 by default.
    """
    number, size, weights = bytes_per_number(dtype), batch or _BATCH, weight_bytes(shape, dtype)
    tokens = _PROMPT_TOKENS + max((each.new_tokens for each in asked), default=0)
    cache = size * tokens * shape.layers * 2 * shape.key_value_heads * shape.head_size * number
    # The next token's logits, or those of a batch's continuations, in float32 beside the model's own.
    logits = size * shape.vocabulary * (4 + number)
    batches = sum(math.ceil((each.items or _ITEMS) / size) * max(1, each.new_tokens) for each in asked)
    processes = parts + 1 if parts * tensor_parallel > 1 else 1
    return Resources(
        gpus=parts * tensor_parallel,
        memory=processes * BASE_MEMORY + parts * weights,
        device_memory=(weights + cache) // tensor_parallel + logits,
        minutes=START_MINUTES + batches * max(weights / tensor_parallel / _BYTES_PER_SECOND, _LEAST_TOKEN) / 60 / parts,
    )

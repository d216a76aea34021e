"""Formulas for the cost of a training: steps, operations and bytes, from shapes, options and lengths.

docs/matrix.md lists them, with what they leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.costs.model_shapes import Shape

# Bytes per position and hidden unit of a layer in 16 bits, without attention weights (arXiv 2205.05198).
_LAYER_ACTIVATIONS = 34
_CHUNK_BYTES, _LEAST_CHUNK, _CHUNK_TENSORS = 64 * 2**20, 512, 12  # defaults of the chunked loss
_UNCHUNKED_ROWS = 6.5  # float32 rows of vocabulary size that the dual-space loss stores for each labelled token


@dataclass(frozen=True)
class Lengths:
    """The number of examples of a training set, and the mean numbers of tokens of a prompt and of a response with its end."""

    examples: int
    prompt_tokens: float
    response_tokens: float

    @property
    def tokens(self) -> float:
        """The mean number of tokens of an example."""
        return self.prompt_tokens + self.response_tokens


def steps_of(options: Mapping[str, Any], data: Lengths, processes: int) -> tuple[int, float]:
    """The optimizer steps of a training, and the examples trained on. An epoch drops batches that do not divide among processes."""
    per_batch = float(options["batch_size"])
    if options["batch_tokens"] is not None:
        per_batch = max(1.0, options["batch_tokens"] / data.tokens)
    per_step = per_batch * options["gradient_accumulation_steps"] * processes
    if options["steps"] is not None:
        return options["steps"], options["steps"] * per_step
    batches = math.ceil(data.examples / per_batch) // processes
    steps = math.ceil(options["epochs"] * max(1, math.ceil(batches / options["gradient_accumulation_steps"])))
    return steps, min(steps * per_step, data.examples * options["epochs"])


def training_operations(student: Shape, options: Mapping[str, Any], tokens: float, labelled: float) -> float:
    """Operations with cross-entropy only: 2 forward and 4 backward per weight and token; with LoRA 2 backward for frozen weights."""
    adapter, head = adapter_parameters(student, options), 6.0
    layers = 6.0 * student.layer_parameters
    if options["lora"] is not None:
        layers, head = 4.0 * student.layer_parameters + 6.0 * adapter, 4.0
    if options["gradient_checkpointing"]:
        layers += 2.0 * (student.layer_parameters + adapter)
    return layers * tokens + head * student.head_parameters * labelled


def distillation_operations(student: Shape, teacher: Shape, labelled: float, *, dual: bool) -> float:
    """Additional operations of distillation: the teacher's logits; for dual-space methods also projectors and projected logits."""
    operations = 2.0 * teacher.head_parameters
    if dual:
        operations += 4.0 * student.head_parameters + 4.0 * teacher.head_parameters
        operations += 10.0 * student.hidden * teacher.hidden
    return operations * labelled


def adapter_parameters(student: Shape, options: Mapping[str, Any]) -> int:
    """The number of parameters of a LoRA adapter on all linear layers; 0 without `lora`."""
    if options["lora"] is None:
        return 0
    return student.layers * options["lora"]["rank"] * sum(inputs + outputs for inputs, outputs in student.linear)


def training_memory(student: Shape, options: Mapping[str, Any], launch: Mapping[str, Any]) -> float:
    """Bytes per GPU for the student: float32 weights, their copy in `dtype`, gradients, Adam's two moments, and activations."""
    copy = 2.0 if options["dtype"] == "bfloat16" else 0.0
    trained = float(adapter_parameters(student, options) if options["lora"] is not None else student.parameters)
    frozen = float(student.parameters if options["lora"] is not None else 0)
    weights, state = (4.0 + copy) * trained + 4.0 * frozen, 12.0 * trained
    if launch["sharded"]:
        state /= launch["processes"]
    if launch["sharded"] == "FSDP":
        weights /= launch["processes"]
    relative_size = bytes_per_number(options["dtype"]) / 2  # of activations: 1 for 16 bits
    stored = student.layers * _LAYER_ACTIVATIONS
    if options["gradient_checkpointing"]:
        stored = student.layers * 2 + _LAYER_ACTIVATIONS
    return weights + state + _positions(options) * student.hidden * stored * relative_size


def loss_memory(
    student: Shape, teacher: Shape | None, options: Mapping[str, Any], data: Lengths, *, chunkable: bool
) -> float:
    """Bytes of the loss. A loss that is not `chunkable` is not chunked, whatever the options."""
    rows = max(student.vocabulary, teacher.vocabulary if teacher else 0)
    labelled = _positions(options) * data.response_tokens / data.tokens
    if not (chunkable and options["chunked_loss"]):
        return labelled * rows * 4 * _UNCHUNKED_ROWS
    chunk = options["chunk_tokens"] or max(_LEAST_CHUNK, _CHUNK_BYTES // (4 * rows))
    return min(chunk, labelled) * rows * 4 * _CHUNK_TENSORS


def teacher_memory(
    student: Shape, teacher: Shape | None, options: Mapping[str, Any], *, live: bool, dual: bool
) -> float:
    """Bytes of a live teacher, or of the head of a cached one; and of projectors in both directions with optimizer state."""
    if teacher is None:
        return 0.0
    parameters = teacher.parameters if live else teacher.head_parameters
    return float(
        parameters * bytes_per_number(options["dtype"]) + (2 * 16 * student.hidden * teacher.hidden if dual else 0)
    )


def _positions(options: Mapping[str, Any]) -> int:
    """The positions of a batch of one process if all examples have the maximum length."""
    return int(options["batch_tokens"] or options["batch_size"] * options["max_length"])


def bytes_per_number(dtype: str) -> int:
    """Bytes of a number in this dtype."""
    return 4 if dtype == "float32" else 2

"""What a training takes, from shapes, options and lengths alone: steps, operations, bytes. Formulas and no more.

docs/matrix.md has them as a table, with what they leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.costs.model_shapes import Shape

# Bytes a place and hidden unit of a layer in 16 bits, attention's weights not kept (arXiv 2205.05198).
_LAYER_ACTIVATIONS = 34
_CHUNK_BYTES, _LEAST_CHUNK, _CHUNK_TENSORS = 64 * 2**20, 512, 12  # of the fused loss, by default
_UNFUSED_ROWS = 6.5  # float32 rows of the vocabulary that the dual-space loss keeps for a labelled token


@dataclass(frozen=True)
class Lengths:
    """How many examples a training set has, and the mean tokens of a prompt and of a response with its end."""

    examples: int
    prompt_tokens: float
    response_tokens: float

    @property
    def tokens(self) -> float:
        """Of a whole example."""
        return self.prompt_tokens + self.response_tokens


def steps_of(options: Mapping[str, Any], data: Lengths, processes: int) -> tuple[int, float]:
    """(optimizer steps, examples trained on) of a training: an epoch leaves out the last batches that do not go round."""
    tokens = options["batch_tokens"]
    a_batch = float(options["batch_size"]) if tokens is None else max(1.0, tokens / data.tokens)
    a_step = a_batch * options["gradient_accumulation_steps"] * processes
    if options["steps"] is not None:
        return options["steps"], options["steps"] * a_step
    batches = math.ceil(data.examples / a_batch) // processes
    steps = math.ceil(options["epochs"] * max(1, math.ceil(batches / options["gradient_accumulation_steps"])))
    return steps, min(steps * a_step, data.examples * options["epochs"])


def training_operations(student: Shape, options: Mapping[str, Any], tokens: float, labelled: float) -> float:
    """Of cross entropy alone: forward 2, backward 4 for a weight and token; of an adapter's model, 2 of the 4 fall away."""
    adapter, head = adapter_parameters(student, options), 6.0
    layers = 6.0 * student.layer_parameters
    if options["lora"] is not None:
        layers, head = 4.0 * student.layer_parameters + 6.0 * adapter, 4.0
    if options["gradient_checkpointing"]:
        layers += 2.0 * (student.layer_parameters + adapter)
    return layers * tokens + head * student.head_parameters * labelled


def distillation_operations(student: Shape, teacher: Shape, labelled: float, *, dual: bool) -> float:
    """Beside cross entropy: the teacher's logits; of dual-space methods also those of the projected states, and the projectors."""
    operations = 2.0 * teacher.head_parameters
    if dual:
        operations += 4.0 * student.head_parameters + 4.0 * teacher.head_parameters
        operations += 10.0 * student.hidden * teacher.hidden
    return operations * labelled


def adapter_parameters(student: Shape, options: Mapping[str, Any]) -> int:
    """Of a low-rank adapter of all linear maps of the layers; none without `lora`."""
    if options["lora"] is None:
        return 0
    return student.layers * options["lora"]["rank"] * sum(inputs + outputs for inputs, outputs in student.linear)


def training_memory(student: Shape, options: Mapping[str, Any], launch: Mapping[str, Any]) -> float:
    """Bytes a GPU for the student: float32 weights, their copy in `dtype`, gradients and Adam's two moments, and activations."""
    copy = 2.0 if options["dtype"] == "bfloat16" else 0.0
    trained = float(adapter_parameters(student, options) if options["lora"] is not None else student.parameters)
    frozen = float(student.parameters if options["lora"] is not None else 0)
    weights, state = (4.0 + copy) * trained + 4.0 * frozen, 12.0 * trained
    if launch["sharded"]:
        state /= launch["processes"]
    if launch["sharded"] == "FSDP":
        weights /= launch["processes"]
    a_unit = bytes_per_number(options["dtype"]) / 2  # of activations: 1 in 16 bits
    of_layers = student.layers * _LAYER_ACTIVATIONS
    if options["gradient_checkpointing"]:
        of_layers = student.layers * 2 + _LAYER_ACTIVATIONS
    return weights + state + _places(options) * student.hidden * of_layers * a_unit


def loss_memory(
    student: Shape, teacher: Shape | None, options: Mapping[str, Any], data: Lengths, *, fused: bool
) -> float:
    """A method that needs whole examples runs unfused whatever the options."""
    rows = max(student.vocabulary, teacher.vocabulary if teacher else 0)
    labelled = _places(options) * data.response_tokens / data.tokens
    if not (fused and options["chunked_loss"]):
        return labelled * rows * 4 * _UNFUSED_ROWS
    chunk = options["chunk_tokens"] or max(_LEAST_CHUNK, _CHUNK_BYTES // (4 * rows))
    return min(chunk, labelled) * rows * 4 * _CHUNK_TENSORS


def teacher_memory(
    student: Shape, teacher: Shape | None, options: Mapping[str, Any], *, live: bool, dual: bool
) -> float:
    """A live teacher, or the head of one whose states are looked up; and projectors with their state, to and fro."""
    if teacher is None:
        return 0.0
    held = teacher.parameters if live else teacher.head_parameters
    return float(held * bytes_per_number(options["dtype"]) + (2 * 16 * student.hidden * teacher.hidden if dual else 0))


def _places(options: Mapping[str, Any]) -> int:
    """Of a batch of one process when its examples are as long as they may be."""
    return int(options["batch_tokens"] or options["batch_size"] * options["max_length"])


def bytes_per_number(dtype: str) -> int:
    """Of weights and activations in a training's dtype."""
    return 4 if dtype == "float32" else 2

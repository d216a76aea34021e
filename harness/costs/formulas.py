"""Formulas for the cost of a training: steps, operations and bytes, from shapes, options and lengths.

docs/matrix.md lists them, with what they leave out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.costs.model_shapes import Shape
from harness.costs.work import Device, Work

# Bytes per position and hidden unit of a layer in 16 bits, without attention weights (arXiv 2205.05198).
_LAYER_ACTIVATIONS = 34
_CHUNK_BYTES, _LEAST_CHUNK, _CHUNK_TENSORS = 64 * 2**20, 512, 12  # defaults of the chunked loss
ONE_PROCESS = {"processes": 1, "sharded": ""}
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


def teacher_work(
    kind: str, what: str, device: Device, teacher: Shape, dtype: str, data: Lengths, bytes_per_token: float = 0.0
) -> Work:
    """One forward pass of a teacher, with logits of labelled tokens only, of which each takes `bytes_per_token` on the disk."""
    tokens, labelled = data.examples * data.tokens, data.examples * data.response_tokens
    operations = 2.0 * teacher.layer_parameters * tokens + 2.0 * teacher.head_parameters * labelled
    memory = float(teacher.parameters * bytes_per_number(dtype))
    return Work(kind, what, None, tokens, operations, memory, device.hours(operations), labelled * bytes_per_token)


def training_work(
    kind: str,
    what: str,
    device: Device,
    student: Shape,
    options: Mapping[str, Any],
    data: Lengths,
    launch: Mapping[str, Any] = ONE_PROCESS,
    teacher: Shape | None = None,
    *,
    live: bool = False,
    reference: bool = False,
    dual: bool = False,
    chunkable: bool = True,
) -> Work:
    """A training with these `TrainingOptions`.

    Args:
        launch: `processes`, and `sharded`: "FSDP" or "DEEPSPEED" where they share the student's state, else "".
        live: whether the teacher runs in the training; of a cached one, only the head is there.
        reference: whether a frozen model of the student's size runs in the training besides.
        dual: whether the method has projectors in both directions, and logits of projected hidden states.
        chunkable: whether the options decide if the loss is chunked; otherwise it is not.
    """
    steps, examples = steps_of(options, data, launch["processes"])
    tokens, labelled = examples * data.tokens, examples * data.response_tokens
    operations = training_operations(student, options, tokens, labelled)
    rows = max(student.vocabulary, teacher.vocabulary if teacher else 0)
    labelled_positions = _positions(options) * data.response_tokens / data.tokens
    loss = labelled_positions * rows * 4 * _UNCHUNKED_ROWS
    if chunkable and options["chunked_loss"]:
        chunk = options["chunk_tokens"] or max(_LEAST_CHUNK, _CHUNK_BYTES // (4 * max(1, rows)))
        loss = min(chunk, labelled_positions) * rows * 4 * _CHUNK_TENSORS
    memory = training_memory(student, options, launch) + loss
    if reference:
        operations += 2.0 * student.layer_parameters * tokens + 2.0 * student.head_parameters * labelled
        memory += student.parameters * bytes_per_number(options["dtype"])
    if teacher is not None:
        operations += 2.0 * teacher.layer_parameters * tokens if live else 0.0
        operations += 2.0 * teacher.head_parameters * labelled
        memory += (teacher.parameters if live else teacher.head_parameters) * bytes_per_number(options["dtype"])
        if dual:
            operations += 4.0 * (student.head_parameters + teacher.head_parameters) * labelled
            operations += 10.0 * student.hidden * teacher.hidden * labelled
            memory += 2 * 16 * student.hidden * teacher.hidden  # projectors with gradients and optimizer state
    return Work(kind, what, steps, tokens, operations, memory, device.hours(operations))


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


def _positions(options: Mapping[str, Any]) -> int:
    """The positions of a batch of one process if all examples have the maximum length."""
    return int(options["batch_tokens"] or options["batch_size"] * options["max_length"])


def bytes_per_number(dtype: str) -> int:
    """Bytes of a number in this dtype."""
    return 4 if dtype == "float32" else 2

"""Whether an engine gives what transformers gives for the same model: compared on a sample of rows before a cache is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import psutil
import torch
from pydantic import BaseModel
from torch import Tensor

from dskd.errors import InputError, is_out_of_memory
from dskd.modeling.folders import is_quantised, parts_of
from dskd.modeling.lm_head import Head
from dskd.modeling.loading import load_model
from dskd.modeling.weight_files import weight_files
from dskd.teachers.cache_source import CacheSource
from dskd.teachers.engines.base import Answers
from dskd.teachers.engines.transformers import TransformersEngine
from dskd.teachers.kept_outputs import log_probabilities, predictions
from dskd.teachers.questions import Question

ROWS = 8
# By dtype: how far the largest difference may be, as a share of the largest value, and which share of predictions has to be equal.
# Measured on a Llama with random weights, whose next tokens are nearly equally probable: vLLM differs from transformers in bfloat16
# by 0.03, with 0.94 of the predictions equal, and in float32 by 5e-6, with all equal. Transformers in bfloat16 differs from itself
# in float32 by 0.04, with 0.93 equal; the limits are wider, as models differ.
_LIMITS = {"float32": (1e-3, 0.98), "float16": (5e-2, 0.9), "bfloat16": (0.25, 0.75)}
_OF_QUANTISED = _LIMITS["bfloat16"]  # kernels differ by what they round
_SPARE = 1.1  # of a model's size, for what it computes


class EngineComparison(BaseModel):
    """What an engine and transformers say of the same rows.

    Attributes:
        rows, tokens: That were compared.
        largest_difference: Of any number, as a share of the largest.
        equal_predictions: The share of tokens with the same most probable token; None where the engine does not say it.
        not_compared: Why there was nothing to compare with.
    """

    rows: int = 0
    tokens: int = 0
    largest_difference: float | None = None
    equal_predictions: float | None = None
    not_compared: str | None = None

    def __str__(self) -> str:
        if self.not_compared is not None:
            return f"not compared with transformers: {self.not_compared}"
        equal = "" if self.equal_predictions is None else f", {self.equal_predictions:.1%} of predictions equal"
        return (
            f"{self.rows} rows, {self.tokens:,} tokens compared with transformers: largest difference "
            f"{self.largest_difference:.2g} of the largest value{equal}"
        )


@dataclass(frozen=True)
class Reference:
    """What transformers gives for the sample: hidden [positions, hidden] on the CPU, and the model's head there."""

    questions: list[Question]
    hidden: Tensor
    head: Head


def reference_answers(source: CacheSource, *, device: Any, batch_tokens: int) -> Reference | str:
    """What transformers gives for a sample of rows of all lengths, or why it gives nothing here.

    Raises InputError for a teacher that it refuses for another reason than what this machine has.
    """
    if reason := _too_large(source, device):
        return reason
    try:
        model = load_model(source.teacher, source.dtype)
    except InputError as error:
        if source.served is None and not is_quantised(parts_of(source.teacher).model):
            raise
        return str(error).split("; fix: ")[0]
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            return "memory ran out as it was loaded"
        raise
    questions = source.questions(_spread(source.lengths))
    try:
        with TransformersEngine(model, source.head.size, device=device, batch_tokens=batch_tokens) as engine:
            hidden = engine.ask(questions).result()["hidden"]
            head = engine.head
            bias = None if head.bias is None else head.bias.cpu()
            return Reference(questions, hidden, replace(head, weight=head.weight.cpu(), bias=bias))
    except torch.OutOfMemoryError:
        return "memory ran out as it was run"
    finally:
        del model
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # for vLLM, which is another process


def require_equal(source: CacheSource, engine: str, reference: Reference, answers: Answers) -> EngineComparison:
    """Compare an engine's answers with the reference. Raises InputError where they are too far from each other."""
    labels = torch.tensor([label for question in reference.questions for label in question.labels])
    expected = predictions(reference.head, reference.hidden)
    found: Tensor | None = None
    if "hidden" in answers:
        one, other = reference.hidden.float(), answers["hidden"].float()
        found = predictions(reference.head, answers["hidden"])
    else:
        ids = answers["ids"].long() if "ids" in answers else labels[:, None]
        there = ids >= 0
        one = log_probabilities(reference.head, reference.hidden, ids.clamp_min(0))[there]
        other = answers["log_probabilities"].reshape(ids.shape)[there]
        found = ids[:, 0] if "ids" in answers else None
    comparison = EngineComparison(
        rows=len(reference.questions),
        tokens=len(labels),
        largest_difference=float((one - other).abs().max() / one.abs().max()),
        equal_predictions=None if found is None else float((expected == found).float().mean()),
    )
    most, least = _limits(source)
    assert comparison.largest_difference is not None
    equal = comparison.equal_predictions
    if not comparison.largest_difference <= most or (equal is not None and equal < least):
        raise InputError(
            f"{source.teacher}: {engine} gives something else than transformers: {comparison} (at most {most:g} and at least "
            f"{least:.0%} are rounding in {source.dtype}); fix: {_fix(source)}; nothing was written"
        )
    return comparison


def _fix(source: CacheSource) -> str:
    if source.served is not None:
        return "serve the model of this folder, or give the folder of the model that is served"
    return "set engine to transformers, or another dtype"


def _limits(source: CacheSource) -> tuple[float, float]:
    if is_quantised(parts_of(source.teacher).model):
        return _OF_QUANTISED
    dtypes = [source.dtype] if source.served is None else [source.dtype, source.served.dtype]
    return max(_LIMITS[dtype] for dtype in dtypes)


def _spread(lengths: np.ndarray) -> list[int]:
    """Rows of all lengths, the shortest and the longest among them."""
    order = np.argsort(lengths, kind="stable")
    places = np.linspace(0, len(order) - 1, min(ROWS, len(order))).round().astype(int)
    return order[places].tolist()


def _too_large(source: CacheSource, device: Any) -> str | None:
    """Why this machine has no room for the teacher's weights; None where it has."""
    folder = parts_of(source.teacher).model
    size = source.numbers * getattr(torch, source.dtype).itemsize
    if is_quantised(folder):
        size = sum(file.stat().st_size for file in weight_files(folder))
    free = psutil.virtual_memory().available
    if torch.device(device).type == "cuda":
        free = min(free, torch.cuda.mem_get_info(device)[0])
    if size * _SPARE <= free:
        return None
    return f"it needs {size * _SPARE / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free here"

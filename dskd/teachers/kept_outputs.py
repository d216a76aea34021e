"""What a cache keeps of a teacher's answers: made of hidden states by its head, or as a server gave it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dskd.errors import InputError
from dskd.losses.sorting import argmax_of_rows
from dskd.modeling.lm_head import Head
from dskd.teachers.options import TeacherCacheOptions

LOGITS_AT_ONCE = 2**24  # float32 logits that are in memory at a time: 64 MiB


def kept(
    options: TeacherCacheOptions, head: Head, hidden: Tensor, labels: Tensor, stored_dtype: torch.dtype, name: object
) -> dict[str, Tensor]:
    """The tensors that are stored for these tokens.

    Args:
        options: What is kept.
        head: The teacher's.
        hidden: [tokens, hidden], finite.
        labels: [tokens].
        stored_dtype: Of hidden states.
        name: Of the teacher, in errors.

    Raises:
        InputError: For a value that the stored dtype cannot hold.
    """
    if options.kind == "text_log_probabilities":
        return {"log_probabilities": log_probabilities(head, hidden, labels[:, None])[:, 0]}
    if options.kind == "top_k":
        values, ids = _by_part(
            head, hidden, lambda part, _: _log_p(head, part, options.temperature).topk(options.k, dim=-1)
        )
        return {"ids": ids.int(), "log_probabilities": values}
    stored = hidden.to(stored_dtype)
    if not bool(stored.isfinite().all()):
        raise InputError(
            f"stored_dtype: {name} gives hidden states up to {float(hidden.abs().max()):.3g}, beyond float16; "
            "fix: stored_dtype bfloat16"
        )
    return {"hidden": stored, "predictions": predictions(head, hidden).int()}


def predictions(head: Head, hidden: Tensor) -> Tensor:
    """The most probable token after each state: hidden [tokens, hidden] -> [tokens]."""
    (found,) = _by_part(head, hidden, lambda part, _: (argmax_of_rows(head.logits(part)),))
    return found


def log_probabilities(head: Head, hidden: Tensor, ids: Tensor) -> Tensor:
    """Of these tokens after each state, at temperature 1: hidden [tokens, hidden], ids [tokens, k] -> float32 [tokens, k]."""
    ids = ids.to(hidden.device)
    (found,) = _by_part(head, hidden, lambda part, place: (_log_p(head, part, 1.0).gather(-1, ids[place]),))
    return found


def _log_p(head: Head, hidden: Tensor, temperature: float) -> Tensor:
    return (head.logits(hidden).float() / temperature).log_softmax(-1)


def _by_part(head: Head, hidden: Tensor, function: Callable[[Tensor, slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The tensors that a function makes of a few tokens at a time, put together; logits of all would not fit into memory."""
    step = max(1, LOGITS_AT_ONCE // len(head.weight))
    parts = []
    for first in range(0, len(hidden), step):
        place = slice(first, first + step)
        parts.append(function(hidden[place], place))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))

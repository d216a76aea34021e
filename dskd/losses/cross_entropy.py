"""Cross entropy over a vocabulary with its gradient made in the forward, in one tensor: torch's own makes two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dskd.losses.buffer_pool import empty_from_pool
from dskd.losses.row_blocks import row_blocks


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """−Σ log softmax(logits)[label] in float32: logits [tokens, vocabulary], labels [tokens]; a label below zero counts nothing."""
    return _CrossEntropySum.apply(logits, labels)[0]


def cross_entropy_and_hits(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and the number of labels that have the largest logit of their row, without gradient."""
    sum_, hits = _CrossEntropySum.apply(logits, labels)
    return sum_, hits


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        known = labels >= 0
        index = labels.clamp_min(0).unsqueeze(-1)
        chosen = torch.empty_like(index, dtype=torch.float32)
        largest = torch.empty_like(chosen)
        gradient = empty_from_pool(logits.shape, logits) if ctx.needs_input_grad[0] else None
        for rows in row_blocks(logits):
            log_probabilities = logits[rows].float().log_softmax(-1)
            chosen[rows] = log_probabilities.gather(-1, index[rows])
            largest[rows] = log_probabilities.amax(-1, keepdim=True)
            if gradient is not None:
                part = log_probabilities.exp_()
                part.scatter_add_(-1, index[rows], part.new_full((), -1.0).expand_as(index[rows]))
                gradient[rows] = part
        ctx.gradient, ctx.known = gradient, known
        hits = (known & (chosen == largest).squeeze(-1)).sum().float()
        ctx.mark_non_differentiable(hits)
        return -torch.where(known, chosen.squeeze(-1), 0.0).sum(), hits

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_((ctx.known * upstream[0]).unsqueeze(-1)), None

"""Cross entropy over a vocabulary with its gradient made in the forward, in one tensor.

torch's own keeps the log-probabilities for the backward and fills another [tokens, vocabulary] tensor there. Losses here take two
of these a token, so the passes over memory count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """−Σ log softmax(logits)[label] in float32: logits [tokens, vocabulary], labels [tokens]; a label below zero counts nothing."""
    return _CrossEntropySum.apply(logits, labels)


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        known = labels >= 0
        index = labels.clamp_min(0).unsqueeze(-1)
        log_probabilities = logits.float().log_softmax(-1)
        chosen = torch.where(known, log_probabilities.gather(-1, index).squeeze(-1), 0.0)
        if ctx.needs_input_grad[0]:
            gradient = log_probabilities.exp_()
            gradient.scatter_add_(-1, index, gradient.new_full((), -1.0).expand_as(index))
            ctx.gradient, ctx.known, ctx.dtype = gradient, known, logits.dtype
        return -chosen.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_((ctx.known * upstream[0]).unsqueeze(-1)).to(ctx.dtype), None

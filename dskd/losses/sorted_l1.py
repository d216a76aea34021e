"""The distance between two distributions over different vocabularies, whose probabilities are compared by rank (docs/method.md)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dskd.losses.buffer_pool import empty_from_pool
from dskd.losses.row_blocks import row_blocks


def sorted_l1_of_logits(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Σ_k |p↓_k − q↓_k| [tokens], probabilities sorted descending, the shorter vocabulary filled up with zeros.

    teacher_logits [tokens, teacher vocabulary], student_logits [tokens, vocabulary]. In float32; the gradient is the student's.
    """
    return _SortedL1.apply(teacher_logits, student_logits, temperature)


class _SortedL1(torch.autograd.Function):
    """A few rows at a time, the gradient made in the forward: the order of a vocabulary is eight bytes a token and a word."""

    @staticmethod
    def forward(ctx: Any, teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
        values = torch.empty(len(student_logits), dtype=torch.float32, device=student_logits.device)
        gradient = empty_from_pool(student_logits.shape, student_logits) if ctx.needs_input_grad[1] else None
        longer = max(teacher_logits.shape[-1], student_logits.shape[-1])
        for rows in row_blocks(student_logits):
            p = (teacher_logits[rows].float() / temperature).softmax(-1).sort(-1, descending=True).values
            q = (student_logits[rows].float() / temperature).softmax(-1)
            ranked, order = q.sort(-1, descending=True)
            gap = nn.functional.pad(ranked, (0, longer - ranked.shape[-1])) - nn.functional.pad(
                p, (0, longer - p.shape[-1])
            )
            values[rows] = gap.abs().sum(-1)
            if gradient is not None:
                signs = torch.empty_like(q).scatter_(-1, order, gap[:, : q.shape[-1]].sign())
                gradient[rows] = q * (signs - (q * signs).sum(-1, keepdim=True)) / temperature
        ctx.gradient = gradient
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        return None, gradient.mul_(upstream[0].unsqueeze(-1)), None


def sorted_l1(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Σ_k |sort p − sort q|_k [groups], the shorter padded with zeros; log p [groups, teacher tokens], log q [groups, tokens]."""
    p, q = (side.exp().sort(-1, descending=True).values for side in (log_p, log_q))
    common = min(p.shape[-1], q.shape[-1])
    beyond = p[:, common:].sum(-1) + q[:, common:].sum(-1)
    return (p[:, :common] - q[:, :common]).abs().sum(-1) + beyond

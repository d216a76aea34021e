"""Distances of two distributions by rank: the largest of one with the largest of the other, for any two vocabularies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dskd.losses.divergences import ByRows, mean_and_gradient
from dskd.losses.sorting import sort, sorted_values
from dskd.losses.token_groups import at_temperature


def sorted_l1(log_p: Tensor, log_q: Tensor, largest: int | None = None) -> Tensor:
    """Σ_k |sort p − sort q|_k [groups], the shorter padded with zeros; log p [groups, teacher tokens], log q [groups, tokens].

    `largest`: of each side so many are compared, and no others. The gradient is the student's.
    """
    if largest is None or largest >= max(log_p.shape[-1], log_q.shape[-1]):
        return _SortedL1.apply(log_p, log_q)
    p, q = (_descending(side.exp(), largest) for side in (log_p.detach(), log_q))
    common = min(p.shape[-1], q.shape[-1])
    beyond = p[:, common:].sum(-1) + q[:, common:].sum(-1)
    return (p[:, :common] - q[:, :common]).abs().sum(-1) + beyond


def _descending(values: Tensor, largest: int) -> Tensor:
    if largest >= values.shape[-1]:
        return sort(values, descending=True)[0]
    return values.topk(largest, dim=-1).values


def sorted_l1_of_logits(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """The same of logits [tokens, teacher vocabulary] and [tokens, vocabulary], in float32; the gradient is the student's."""
    return ByRows.apply(_sorted_l1_part, teacher_logits, student_logits, temperature)


class _SortedL1(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_p: Tensor, log_q: Tensor) -> Tensor:
        q = log_q.exp()
        values, signs = _ranked_gaps(log_p.exp(), q)
        ctx.gradient = signs.mul_(q)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        return None, gradient.mul_(upstream[0].unsqueeze(-1))


def _sorted_l1_part(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    p, q = (at_temperature(logits, temperature).softmax(-1) for logits in (teacher_logits, student_logits))
    values, signs = _ranked_gaps(p, q)
    return values, mean_and_gradient(q, signs, temperature)[1]


def _ranked_gaps(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_k |sort p − sort q|_k [rows], the shorter padded with zeros, and its derivative to q: for each the sign at its rank."""
    gaps, order = sort(q, descending=True)
    ranked = sorted_values(p, descending=True)
    common = min(p.shape[-1], q.shape[-1])
    gaps[:, :common] -= ranked[:, :common]
    values = gaps.abs().sum(-1) + ranked[:, common:].sum(-1)
    return values, torch.empty_like(q).scatter_(-1, order, gaps.sign_())


def sorted_l1_of_top_k(log_p: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Σ_(i ≤ k) |p↓_i − q↓_i| + |the rest of p − the rest of q| [tokens], from the teacher's k largest log-probabilities.

    The rests are one outcome of each, compared with each other and sorted nowhere; |Σ (p − q)| ≤ Σ |p − q|, so this is never above
    `sorted_l1_of_logits`.

    Args:
        log_p: [tokens, k], descending; minus infinity where the teacher gave fewer.
        student_logits: [tokens, vocabulary]; a shorter vocabulary has probability 0 beyond its end.
        temperature: Divides the student's logits.
    """
    given = log_p > -torch.inf
    p = log_p.float().exp()
    q = (student_logits.float() / temperature).softmax(-1)
    known = min(p.shape[-1], q.shape[-1])
    ranked = nn.functional.pad(q.topk(known, dim=-1).values, (0, p.shape[-1] - known)) * given
    rest = (1.0 - p.sum(-1)).clamp_min(0.0) - (1.0 - ranked.sum(-1))
    return (p - ranked).abs().sum(-1) + rest.abs()

"""Divergences between a teacher's and a student's next-token distributions (docs/method.md).

Each is a pure function (teacher_logits [tokens, vocabulary], student_logits [tokens, vocabulary], temperature) -> [tokens], summed
over the vocabulary, in float32 and in log space. Logits are divided by the temperature first; there is no temperature² factor.
Logits of minus infinity (masked tokens) carry no probability and no gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from dskd.rows import row_blocks
from dskd.scratch import empty

Divergence = Callable[..., Tensor]
DIVERGENCES: dict[str, Divergence] = {}


def _log_probabilities(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return (
        (teacher_logits.float() / temperature).log_softmax(-1),
        (student_logits.float() / temperature).log_softmax(-1),
    )


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) [tokens]. 0 · log(0 / q) is 0; masked before the product, so that no gradient is infinity times zero."""
    ratio = (log_p - log_q).masked_fill(log_p == -math.inf, 0.0)
    return (log_p.exp() * ratio).sum(-1)


def _log_mixture(log_p: Tensor, log_q: Tensor, weight_of_p: float) -> Tensor:
    # The gradient of logaddexp is 0/0 where both are minus infinity; e⁻¹⁰⁰⁰ is zero in float32 all the same.
    floor = -1e3
    return torch.logaddexp(
        log_p.clamp_min(floor) + math.log(weight_of_p), log_q.clamp_min(floor) + math.log1p(-weight_of_p)
    )


Part = Callable[..., tuple[Tensor, Tensor]]


class _ByRows(torch.autograd.Function):
    """A divergence a few rows at a time, its gradient to the student's logits made in the forward (dskd/rows.py).

    `part`: (teacher_logits, student_logits, temperature) of some rows -> (values, gradients of their sum).
    """

    @staticmethod
    def forward(ctx: Any, part: Part, teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
        values = torch.empty(len(student_logits), dtype=torch.float32, device=student_logits.device)
        ctx.gradient = empty(student_logits.shape, student_logits)
        for rows in row_blocks(student_logits):
            values[rows], ctx.gradient[rows] = part(teacher_logits[rows], student_logits[rows], temperature)
        return values

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        return None, None, gradient.mul_(upstream[0].unsqueeze(-1)), None


def _differentiated(function: Divergence) -> Part:
    """The part of any divergence, by automatic differentiation."""

    def part(
        teacher_logits: Tensor, student_logits: Tensor, temperature: float, **knobs: float
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = student_logits.detach().requires_grad_()
            values = function(teacher_logits, leaf, temperature, **knobs)
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
        return values.detach(), gradient

    return part


def _forward_kl_part(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL(p || q) and (q − p) / τ, in a third of the passes over memory: the default divergence is a good part of a loss."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    terms = (log_p - log_q).masked_fill_(log_p == -math.inf, 0.0)
    p = log_p.exp_()
    return terms.mul_(p).sum(-1), log_q.exp_().sub_(p).div_(temperature)


def _register(function: Divergence, part: Part | None = None) -> Divergence:
    by_rows = part or _differentiated(function)

    @wraps(function)
    def divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0, **knobs: float) -> Tensor:
        if student_logits.requires_grad and not teacher_logits.requires_grad:
            return _ByRows.apply(partial(by_rows, **knobs), teacher_logits, student_logits, temperature)
        return function(teacher_logits, student_logits, temperature, **knobs)

    DIVERGENCES[function.__name__] = divergence
    return divergence


@partial(_register, part=_forward_kl_part)
def forward_kl(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p || q) [tokens]."""
    return _kl(*_log_probabilities(teacher_logits, student_logits, temperature))


@_register
def reverse_kl(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(q || p) [tokens]."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    return _kl(log_q, log_p)


@_register
def js_divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """½ KL(p || m) + ½ KL(q || m) with m = (p + q) / 2 [tokens]."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    log_m = _log_mixture(log_p, log_q, 0.5)
    return 0.5 * _kl(log_p, log_m) + 0.5 * _kl(log_q, log_m)


@_register
def skewed_forward_kl(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0, skew: float = 0.1
) -> Tensor:
    """KL(p || skew · p + (1 − skew) · q) [tokens]."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    return _kl(log_p, _log_mixture(log_p, log_q, skew))


@_register
def skewed_reverse_kl(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0, skew: float = 0.1
) -> Tensor:
    """KL(q || (1 − skew) · p + skew · q) [tokens]."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    return _kl(log_q, _log_mixture(log_q, log_p, skew))


@_register
def adaptive_kl(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0, head_share: float = 0.5
) -> Tensor:
    """Forward and reverse KL, weighed by where teacher and student differ [tokens].

    The tail holds the teacher's least probable tokens whose probabilities add up to at most `head_share`; the head is the rest. The
    gaps |p − q| of head and tail weigh forward and reverse KL and take no gradient. Where p equals q, both weigh one half.
    """
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    with torch.no_grad():
        p, order = log_p.exp().sort(-1)
        gap = (p - log_q.exp().gather(-1, order)).abs()
        tail = p.cumsum(-1) <= head_share
        head_gap = gap.masked_fill(tail, 0.0).sum(-1)
        tail_gap = gap.masked_fill(~tail, 0.0).sum(-1)
        total = head_gap + tail_gap
        weight = torch.where(total > 0, head_gap / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)
    return weight * _kl(log_p, log_q) + (1 - weight) * _kl(log_q, log_p)

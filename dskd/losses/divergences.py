"""Divergences between a teacher's and a student's next-token distributions (docs/method.md).

Each is a function (teacher_logits [tokens, vocabulary], student_logits [tokens, vocabulary], temperature) -> [tokens], summed over
the vocabulary, in float32 and in log space. Logits are divided by the temperature first; there is no temperature² factor. Tokens
whose logits are minus infinity in both models (masked) take no part. In one alone, its probability counts as e⁻¹⁰⁰⁰ in logarithms,
so that what is infinite in theory is large and has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor

from dskd.losses.buffer_pool import empty_from_pool
from dskd.losses.row_blocks import row_blocks
from dskd.losses.sorting import sort
from dskd.losses.token_groups import at_temperature

Divergence = Callable[..., Tensor]
DIVERGENCES: dict[str, Divergence] = {}


_LEAST_LOG_PROBABILITY = -1e3  # its exponential is zero in float32, yet it has differences and a gradient
_TINY = torch.finfo(torch.float32).tiny


def _log_probabilities(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log p and log q [tokens, vocabulary], finite."""
    return (
        at_temperature(teacher_logits, temperature).log_softmax(-1).clamp_min(_LEAST_LOG_PROBABILITY),
        at_temperature(student_logits, temperature).log_softmax(-1).clamp_min(_LEAST_LOG_PROBABILITY),
    )


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) [tokens]."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def _log_mixture(log_p: Tensor, log_q: Tensor, weight_of_p: float) -> Tensor:
    if weight_of_p == 0.0:
        return log_q
    return torch.logaddexp(log_p + math.log(weight_of_p), log_q + math.log1p(-weight_of_p))


Part = Callable[..., tuple[Tensor, Tensor]]


class ByRows(torch.autograd.Function):
    """A divergence a few rows at a time, its gradient to the student's logits made in the forward (dskd/losses/row_blocks.py).

    `part`: (teacher_logits, student_logits, temperature) of some rows -> (values, gradients of their sum).
    """

    @staticmethod
    def forward(ctx: Any, part: Part, teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
        values = torch.empty(len(student_logits), dtype=torch.float32, device=student_logits.device)
        ctx.gradient = empty_from_pool(student_logits.shape, student_logits)
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


# By hand, in half the time of automatic differentiation or less: one of these takes a good part of a loss.


def _forward_kl_part(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """KL(p || q) and (q − p) / τ."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    log_ratio = log_p - log_q
    p = log_p.exp_()
    return log_ratio.mul_(p).sum(-1), log_q.exp_().sub_(p).div_(temperature)


def mean_and_gradient(q: Tensor, derivative: Tensor, temperature: float, weight: float = 1.0) -> tuple[Tensor, Tensor]:
    """Σ q d and w q (d − Σ q d) / τ, the derivative to the logits where w d is that to q [tokens, vocabulary]. Overwrites d."""
    mean = (q * derivative).sum(-1)
    gradient = derivative.sub_(mean.unsqueeze(-1)).mul_(q)
    return mean, gradient if weight == temperature else gradient.mul_(weight / temperature)


def _reverse_kl_part(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    return mean_and_gradient(log_q.exp(), log_q - log_p, temperature)


def _js_divergence_part(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float, beta: float = 0.5
) -> tuple[Tensor, Tensor]:
    """From probabilities: both log p / m and log q / m have an upper bound, so nothing is lost where p or q is zero in float32.

    Logarithms of the ratios are exact to rounding where p and q are near each other, differences of logarithms are not.
    """
    if beta in (0.0, 1.0):
        part = _forward_kl_part if beta == 0.0 else _reverse_kl_part
        return part(teacher_logits, student_logits, temperature)
    p, q = (at_temperature(logits, temperature).softmax(-1) for logits in (teacher_logits, student_logits))
    mixture = torch.lerp(q, p, beta).clamp_min_(_TINY)
    ratio = torch.div(p, mixture).clamp_min_(_TINY).log_()
    of_teacher = ratio.mul_(p).sum(-1)
    of_student, gradient = mean_and_gradient(
        q, torch.div(q, mixture, out=mixture).clamp_min_(_TINY).log_(), temperature, 1 - beta
    )
    return beta * of_teacher + (1 - beta) * of_student, gradient


def _skewed_forward_kl_part(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float, skew: float = 0.1
) -> tuple[Tensor, Tensor]:
    if skew == 0.0:  # p / m, at most 1 / skew, would have no bound
        return _forward_kl_part(teacher_logits, student_logits, temperature)
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    log_ratio = log_p - _log_mixture(log_p, log_q, skew)
    values = (log_p.exp_() * log_ratio).sum(-1)
    return values, mean_and_gradient(log_q.exp_(), log_ratio.exp_().mul_(skew - 1), temperature)[1]


def _skewed_reverse_kl_part(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float, skew: float = 0.1
) -> tuple[Tensor, Tensor]:
    if skew == 0.0:
        return _reverse_kl_part(teacher_logits, student_logits, temperature)
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    log_ratio = log_q - _log_mixture(log_q, log_p, skew)
    of_mixture = log_ratio.exp().mul_(skew)
    q = log_q.exp_()
    values = (q * log_ratio).sum(-1)
    return values, mean_and_gradient(q, log_ratio.sub_(of_mixture), temperature)[1]


def _register(function: Divergence, part: Part | None = None) -> Divergence:
    by_rows = part or _differentiated(function)

    @wraps(function)
    def divergence(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0, **knobs: float) -> Tensor:
        if student_logits.requires_grad and not teacher_logits.requires_grad:
            return ByRows.apply(partial(by_rows, **knobs), teacher_logits, student_logits, temperature)
        return function(teacher_logits, student_logits, temperature, **knobs)

    DIVERGENCES[function.__name__] = divergence
    return divergence


@partial(_register, part=_forward_kl_part)
def forward_kl(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p || q) [tokens]."""
    return _kl(*_log_probabilities(teacher_logits, student_logits, temperature))


@partial(_register, part=_reverse_kl_part)
def reverse_kl(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(q || p) [tokens]."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    return _kl(log_q, log_p)


@partial(_register, part=_js_divergence_part)
def js_divergence(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0, beta: float = 0.5
) -> Tensor:
    """β KL(p || m) + (1 − β) KL(q || m) with m = β p + (1 − β) q [tokens]; as in GKD, KL(p || q) at β = 0, KL(q || p) at β = 1."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    if beta in (0.0, 1.0):  # of their own, not limits, which are zero
        return _kl(log_p, log_q) if beta == 0.0 else _kl(log_q, log_p)
    log_m = _log_mixture(log_p, log_q, beta)
    return beta * _kl(log_p, log_m) + (1 - beta) * _kl(log_q, log_m)


@_register
def total_variation(teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """½ Σ |p − q| [tokens]."""
    p, q = ((logits.float() / temperature).softmax(-1) for logits in (teacher_logits, student_logits))
    return 0.5 * (p - q).abs().sum(-1)


@partial(_register, part=_skewed_forward_kl_part)
def skewed_forward_kl(
    teacher_logits: Tensor, student_logits: Tensor, temperature: float = 1.0, skew: float = 0.1
) -> Tensor:
    """KL(p || skew · p + (1 − skew) · q) [tokens]."""
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    return _kl(log_p, _log_mixture(log_p, log_q, skew))


@partial(_register, part=_skewed_reverse_kl_part)
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

    The tail is the teacher's least probable tokens, as many as have at most 1 − `head_share` together; the head is the rest. The
    gaps |p − q| of head and tail weigh forward and reverse KL and take no gradient. Where p equals q, both weigh one half.
    """
    log_p, log_q = _log_probabilities(teacher_logits, student_logits, temperature)
    with torch.no_grad():
        p, order = sort(log_p.exp())
        gap = (p - log_q.exp().gather(-1, order)).abs()
        tail = p.cumsum(-1) <= 1 - head_share
        head_gap = gap.masked_fill(tail, 0.0).sum(-1)
        tail_gap = gap.masked_fill(~tail, 0.0).sum(-1)
        total = head_gap + tail_gap
        weight = torch.where(total > 0, head_gap / total.clamp_min(torch.finfo(total.dtype).tiny), 0.5)
    return weight * _kl(log_p, log_q) + (1 - weight) * _kl(log_q, log_p)

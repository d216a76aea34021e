"""Means over the tokens of byte groups: of a model's probabilities and of their logarithms [groups, vocabulary].

Probabilities are taken a few rows at a time, so that of [tokens, vocabulary] there are the logits and their gradient alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dskd.losses.row_blocks import row_blocks
from dskd.losses.token_groups import ByteGroups, at_temperature


def mean_probabilities(logits: Tensor, groups: ByteGroups, temperature: float) -> Tensor:
    """(1 / k) Σ_i softmax(logits_i / τ) over the k tokens of each group: [tokens, vocabulary] -> [limit, vocabulary]."""
    means: Tensor = _GroupMeans.apply(logits, groups, temperature, False)
    return means


def mean_log_probabilities(logits: Tensor, groups: ByteGroups, temperature: float) -> Tensor:
    """(1 / k) Σ_i log softmax(logits_i / τ) over the k tokens of each group: [tokens, vocabulary] -> [limit, vocabulary]."""
    means: Tensor = _GroupMeans.apply(logits, groups, temperature, True)
    return means


class _GroupMeans(torch.autograd.Function):
    """The mean of probabilities or of their logarithms; the gradient a few rows at a time, from the logits."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, groups: ByteGroups, temperature: float, logarithms: bool) -> Tensor:
        sizes = torch.cat([torch.ones_like(groups.place[:1]), groups.sizes().clamp_min(1)])
        share = 1.0 / sizes[groups.place].float()
        means = torch.zeros(groups.places, logits.shape[-1], dtype=torch.float32, device=logits.device)
        for rows in row_blocks(logits):
            scaled = at_temperature(logits[rows], temperature)
            values = scaled.log_softmax(-1) if logarithms else scaled.softmax(-1)
            means.index_add_(0, groups.place[rows], values.mul_(share[rows].unsqueeze(-1)))
        ctx.save_for_backward(logits, groups.place, share)
        ctx.temperature, ctx.logarithms = temperature, logarithms
        return means[1:]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        logits, place, share = ctx.saved_tensors
        gradient = torch.zeros_like(logits)
        if not len(upstream[0]):
            return gradient, None, None, None
        weight = torch.where(place > 0, share / ctx.temperature, 0.0)
        for rows in row_blocks(logits):
            probabilities = at_temperature(logits[rows], ctx.temperature).softmax(-1)
            own = upstream[0][(place[rows] - 1).clamp_min(0)].mul_(weight[rows].unsqueeze(-1))
            if ctx.logarithms:
                gradient[rows] = own.sub_(probabilities.mul_(own.sum(-1, keepdim=True)))
            else:
                own.sub_((probabilities * own).sum(-1, keepdim=True))
                gradient[rows] = own.mul_(probabilities)
        return gradient, None, None, None


def mean_log_probabilities_of_largest(
    logits: Tensor, groups: ByteGroups, temperature: float, count: int, chosen: Tensor | None = None
) -> Tensor:
    """The same of probabilities over a set of tokens alone, minus infinity for the others; without gradient.

    The set is the group's own: the `count` tokens with the largest mean logit, and those that equal the last of them. So it does not
    depend on what else is in the batch.

    Args:
        logits: [tokens, vocabulary].
        groups: Of these tokens.
        temperature: Divides the logits.
        count: How many tokens of the vocabulary; all, where it has no more.
        chosen: bool [vocabulary], one set for all groups in place of their own.
    """
    with torch.no_grad():
        scaled = at_temperature(logits, temperature)
        means = groups.means(scaled)
        if chosen is None and count >= means.shape[-1]:
            return means.sub_(groups.means(scaled.logsumexp(-1)).unsqueeze(-1))
        for rows in row_blocks(means):
            some = means[rows]
            left_out = ~chosen if chosen is not None else some < some.topk(count).values[:, -1:]
            some.masked_fill_(left_out, -torch.inf)
        # The tokens of no group have a place of their own, in which nothing is left out.
        outside = torch.cat([torch.zeros_like(means[:1], dtype=torch.bool), means == -torch.inf])
        normaliser = torch.cat(
            [
                scaled[rows].masked_fill(outside[groups.place[rows]], -torch.inf).logsumexp(-1)
                for rows in row_blocks(scaled)
            ]
            or [scaled.new_zeros(0)]
        )
        return means.sub_(groups.means(normaliser).unsqueeze(-1))

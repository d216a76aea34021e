"""Sums over groups of tokens: stretches of bytes that begin and end at token ends of both models (dskd.tokenization.alignment.byte_groups)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dskd.losses.row_blocks import row_blocks
from dskd.losses.tokens import TokenBatch


class ByteGroups:
    """The groups of one model's labelled tokens in a batch, without a read from the device.

    `numbers` [tokens]: each token's group, ascending from 0, -1 for none. How many there are is known on the device alone, so
    everything has `limit` places; those of no group have size 0.

    Attributes:
        place: [tokens], one more than each token's group; 0 for none, and for a group beyond the limit, which the other side cannot have.
        places: limit + 1.
    """

    def __init__(self, numbers: Tensor, limit: int) -> None:
        self.place = torch.where(numbers < limit, numbers + 1, 0)
        self.places = limit + 1

    def sums(self, values: Tensor) -> Tensor:
        """values [tokens, …] -> [limit, …]; 0 where there is no group."""
        return values.new_zeros(self.places, *values.shape[1:]).index_add(0, self.place, values)[1:]

    def means(self, values: Tensor) -> Tensor:
        """values [tokens, …] -> [limit, …], floats; 0 where there is no group."""
        sizes = self.sizes().clamp_min(1).to(values.dtype)
        return self.sums(values) / sizes.view(-1, *[1] * (values.dim() - 1))

    def sizes(self) -> Tensor:
        """Tokens of each group, int64 [limit]."""
        return self.sums(torch.ones_like(self.place))

    def with_any(self, tokens: Tensor) -> Tensor:
        """Whether a group has one of the tokens, of which indices are given: bool [limit]."""
        marked = torch.zeros(self.places, dtype=torch.bool, device=self.place.device)
        return marked.index_fill(0, self.place[tokens], True)[1:]

    def first(self) -> Tensor:
        """Index of each group's first token, int64 [limit]; some token's where there is no group."""
        return self._extreme("amin", max(0, len(self.place) - 1))

    def last(self) -> Tensor:
        """Index of each group's last token, int64 [limit]; some token's where there is no group."""
        return self._extreme("amax", 0)

    def _extreme(self, which: str, start: int) -> Tensor:
        indices = torch.arange(len(self.place), device=self.place.device)
        return indices.new_full((self.places,), start).scatter_reduce(0, self.place, indices, which)[1:]


def groups_of(batch: TokenBatch) -> tuple[ByteGroups, ByteGroups]:
    # Every group has a token of both models.
    limit = min(len(batch.student.labels), len(batch.teacher.labels))
    return ByteGroups(batch.student.groups, limit), ByteGroups(batch.teacher.groups, limit)


def matched_groups(student: ByteGroups, teacher: ByteGroups, *, strict: bool) -> Tensor:
    """The groups that count, bool [limit]: all, or with `strict` those of one token on either side."""
    sizes = student.sizes(), teacher.sizes()
    return (sizes[0] == 1) & (sizes[1] == 1) if strict else (sizes[0] > 0) & (sizes[1] > 0)


def last_tokens(sizes: Tensor, device: torch.device) -> Tensor:
    """Indices of the last labelled token of each example, int64, on `device`; `sizes` [examples] in the memory of the CPU."""
    ends = sizes.cumsum(0) - 1
    return ends[sizes > 0].to(device, non_blocking=True)


def own_log_probabilities(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(log softmax(logits / τ)[label], log Σ exp(logits / τ)), both float32 [tokens]; logits [tokens, vocabulary]."""
    scaled = at_temperature(logits, temperature)
    normaliser = scaled.logsumexp(-1)
    return scaled.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - normaliser, normaliser


def at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """logits / τ in float32; no copy of float32 logits at temperature 1."""
    return logits.float() if temperature == 1.0 else logits.float() / temperature


Distances = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def distances_over_groups(
    distances: Distances, log_p: Tensor, log_q: Tensor, kept: Tensor, matched: Tensor
) -> tuple[Tensor, Tensor]:
    """Two distances between merged distributions, each added up over the groups that are kept: bool [groups].

    `distances`: log p, log q [some groups, vocabulary] -> two values a group. The first must depend on the student's tokens
    `matched`, bool [vocabulary], and the second on the others alone.
    """
    found: tuple[Tensor, Tensor] = _DistancesOverGroups.apply(distances, log_p, log_q, kept, matched)
    return found


class _DistancesOverGroups(torch.autograd.Function):
    """A few groups at a time, the gradient made in the forward; the two distances depend on different tokens and share a tensor."""

    @staticmethod
    def forward(
        ctx: Any, distances: Distances, log_p: Tensor, log_q: Tensor, kept: Tensor, matched: Tensor
    ) -> tuple[Tensor, Tensor]:
        differentiated = ctx.needs_input_grad[2]
        gradient = torch.empty_like(log_q) if differentiated else None
        sums = log_q.new_zeros(2)
        for rows in row_blocks(log_q):
            with torch.set_grad_enabled(differentiated):
                leaf = log_q[rows].detach().requires_grad_(differentiated)
                some = torch.stack([torch.where(kept[rows], d, 0.0).sum() for d in distances(log_p[rows], leaf)])
                if gradient is not None:
                    (gradient[rows],) = torch.autograd.grad(some.sum(), leaf)
            sums += some.detach()
        ctx.gradient, ctx.matched = gradient, matched
        return sums[0].clone(), sums[1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradient, ctx.gradient = ctx.gradient, None
        return None, None, gradient.mul_(torch.where(ctx.matched, *upstream)), None, None

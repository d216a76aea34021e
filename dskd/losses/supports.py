"""Which tokens of the vocabulary are compared at a position, and what becomes of the probability of the others.

Ids are [tokens, ids], −1 for a place without a token; no id is in a row twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dskd.losses.token_groups import at_temperature

Remainder = Literal["renormalised", "one_outcome"]


@dataclass(frozen=True)
class Distribution:
    """A next-token distribution over the whole vocabulary, of which parts are asked for.

    Attributes:
        scaled: Logits / τ, float32 [tokens, vocabulary].
        normaliser: log Σ exp of them [tokens, 1].
    """

    scaled: Tensor
    normaliser: Tensor

    @classmethod
    def of(cls, logits: Tensor, temperature: float) -> Distribution:
        """Of logits [tokens, vocabulary]."""
        scaled = at_temperature(logits, temperature)
        return cls(scaled, scaled.logsumexp(-1, keepdim=True))

    def top(self, k: int) -> Tensor:
        """The k most probable tokens [tokens, k], or all of a smaller vocabulary."""
        return self.scaled.detach().topk(min(k, self.scaled.shape[-1]), dim=-1).indices

    def at(self, ids: Tensor) -> Tensor:
        """Log-probabilities of these tokens [tokens, ids]; minus infinity where there is none."""
        found = self.scaled.gather(-1, ids.clamp_min(0)) - self.normaliser
        return found.masked_fill(ids < 0, -torch.inf)

    def rest(self, ids: Tensor) -> Tensor:
        """The log-probability of all other tokens together [tokens, 1]; minus infinity where there is no other."""
        size = self.scaled.shape[-1]
        known = torch.zeros(len(ids), size + 1, dtype=torch.bool, device=ids.device)
        known = known.scatter_(-1, ids.masked_fill(ids < 0, size), True)[:, :size]
        others = self.scaled.masked_fill(known, -torch.inf)
        # A sum over nothing has a gradient that is no number.
        none = known.all(-1, keepdim=True)
        found = others.masked_fill(none, 0.0).logsumexp(-1, keepdim=True) - self.normaliser
        return found.masked_fill(none, -torch.inf)

    def entropy(self) -> Tensor:
        """−Σ p log p [tokens]."""
        log_p = self.scaled - self.normaliser
        return -(log_p.exp() * log_p).sum(-1)


@dataclass(frozen=True)
class KnownTokens:
    """A distribution of which the most probable tokens alone are known: ids and log-probabilities [tokens, k], descending."""

    ids: Tensor
    log_probabilities: Tensor

    def top(self, k: int) -> Tensor:
        """The ids, k of them where so many are known."""
        return self.ids[:, :k]

    def at(self, ids: Tensor) -> Tensor:
        """Log-probabilities of the first ids that `top` gives."""
        return self.log_probabilities[:, : ids.shape[-1]].masked_fill(ids < 0, -torch.inf)

    def rest(self, ids: Tensor) -> Tensor:
        """What those leave of 1."""
        left = 1.0 - self.at(ids).exp().sum(-1, keepdim=True)
        return left.clamp_min(torch.finfo(left.dtype).tiny).log()


def without(ids: Tensor, others: Tensor) -> Tensor:
    """ids [tokens, n] with −1 in the place of those that are among others [tokens, m]."""
    return ids.masked_fill((ids.unsqueeze(-1) == others.unsqueeze(-2)).any(-1), -1)


def among(ids: Tensor, others: Tensor) -> Tensor:
    """ids [tokens, n] with −1 in the place of those that are not among others [tokens, m]."""
    return ids.masked_fill(~(ids.unsqueeze(-1) == others.unsqueeze(-2)).any(-1), -1)


def union(ids: Tensor, others: Tensor) -> Tensor:
    """ids and then those of others that are not among them [tokens, n + m]."""
    return torch.cat([ids, without(others, ids)], -1)


def restricted(distribution: Distribution | KnownTokens, ids: Tensor, remainder: Remainder) -> Tensor:
    """Log-probabilities that add up to one, over these tokens alone [tokens, ids] or with one outcome more for all others."""
    found = distribution.at(ids)
    if remainder == "renormalised":
        return found.log_softmax(-1)
    return torch.cat([found, distribution.rest(ids)], -1)

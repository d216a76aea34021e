"""The loss of a policy gradient on tokens that were sampled: clipped importance ratios, as in PPO with a second clip (docs/rivals.md)."""

from __future__ import annotations

import torch
from torch import Tensor

_LARGEST_LOG_RATIO = 20.0  # beyond it the ratio takes no gradient, so that its exponential stays finite


def clipped_surrogate(
    log_q: Tensor, log_old: Tensor, advantage: Tensor, clip_range: float, dual_clip: float
) -> tuple[Tensor, Tensor]:
    """max(−A ρ, −A clip(ρ, 1 − ε, 1 + ε)), for A < 0 at most −c A; ρ = q / q_old. At ρ = 1 its gradient is −A ∇ log q.

    Args:
        log_q: With gradient, any shape.
        log_old: Of the weights that wrote the text, without gradient.
        advantage: A, without gradient.
        clip_range, dual_clip: ε, and c > 1.

    Returns:
        (the loss of each, whether its gradient is cut off by one of the clips), of the shape of `log_q`.
    """
    ratio = (log_q - log_old).clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp()
    loss = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip_range, 1 + clip_range))
    bounded = torch.where(advantage < 0, torch.minimum(loss, -dual_clip * advantage), loss)
    with torch.no_grad():
        beyond = torch.where(advantage > 0, ratio > 1 + clip_range, ratio < 1 - clip_range)
        cut = (advantage != 0) & (beyond | ((advantage < 0) & (ratio > dual_clip)))
    return bounded, cut


def log_likelihood_surrogate(log_q: Tensor, advantage: Tensor) -> Tensor:
    """−A log q: the same gradient at ρ = 1, without ratio and clip."""
    return -advantage * log_q


def discounted_sums(values: Tensor, responses: Tensor, discount: float) -> Tensor:
    """Σ_(k ≥ t) γ^(k − t) v_k within each response, float64 [tokens].

    Args:
        values: [tokens].
        responses: [tokens], number of the response, ascending.
        discount: γ.
    """
    found = values.double()
    reach = 1
    # Doubling: after each round a token has the sum of `reach` tokens, so a text of n takes log n rounds.
    while discount > 0.0 and reach < len(found):
        same = responses[reach:] == responses[:-reach]
        added = torch.where(same, found[reach:] * discount**reach, 0.0)
        found = torch.cat([found[:-reach] + added, found[-reach:]])
        reach *= 2
    return found

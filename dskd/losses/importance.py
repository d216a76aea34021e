"""Weights of a response's tokens by how far the student has left the teacher before them (IW-OPD, arXiv 2606.22600)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dskd.losses.responses import over_responses, sums_before

# D: what |A| adds up to over the units of a response but for the last (the authors), or over all of them (TRL).
Normaliser = Literal["all_but_last", "all"]
_LEAST = 1e-8


def importance_weights(
    advantage: Tensor, begins: Tensor, responses: Tensor, gamma: float, normaliser: Normaliser
) -> Tensor:
    """w = 1 + γ (1 − Σ_(earlier units) |A| / D) of the unit that begins at each token, float32 [tokens].

    The first unit of a response has 1 + γ; with `all_but_last` the last of several has 1.

    Args:
        advantage: A of the unit that begins at a token [tokens].
        begins: bool [tokens], where one begins: at every token, or at the first of each group.
        responses: Number of the response [tokens].
        gamma: γ.
        normaliser: What D adds up.
    """
    sizes = advantage.double().abs().masked_fill(~begins, 0.0)
    before = sums_before(sizes, responses)
    sums = over_responses(sizes, responses, "sum")
    of_all_but_last = over_responses(before.masked_fill(~begins, 0.0), responses, "amax")  # what stands before the last
    whole = sums if normaliser == "all" else of_all_but_last
    return (1 + gamma * (1 - (before / whole.clamp_min(_LEAST)).clamp_max(1.0))).to(torch.float32)

"""What depends on the tokens of a whole response: sums of what comes before a token, and the tokens that are the lowest.

A batch's labelled tokens stand response by response; `responses` [tokens] is the number of each token's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor


def responses_of(sizes: Tensor, device: torch.device) -> Tensor:
    """The number of each token's response, int64 [tokens]; `sizes` [responses] in the memory of the CPU."""
    return torch.arange(len(sizes)).repeat_interleave(sizes).to(device, non_blocking=True)


def over_responses(values: Tensor, responses: Tensor, how: Literal["sum", "amax", "amin"]) -> Tensor:
    """The sum or an extreme of each response's values, at all of its tokens [tokens]."""
    if not len(values):
        return values
    places = len(values)  # no response has fewer tokens than one, so their number needs no read from the device
    found = values.new_zeros(places).scatter_reduce(0, responses, values, how, include_self=False)
    return found[responses]


def sums_before(values: Tensor, responses: Tensor) -> Tensor:
    """Σ_(u < t) v_u within the response of each token, float64 [tokens]."""
    through = values.double().cumsum(0)
    before = through - values.double()
    return before - before[first_tokens(responses)]


def first_tokens(responses: Tensor) -> Tensor:
    """Index of the first token of each token's response, int64 [tokens]."""
    return over_responses(torch.arange(len(responses), device=responses.device), responses, "amin")


def lowest(values: Tensor, responses: Tensor, eligible: Tensor, kept: Callable[[Tensor], Tensor]) -> Tensor:
    """The tokens with the lowest values of each response, bool [tokens]; of equal ones the earlier.

    Args:
        values: [tokens].
        responses: [tokens].
        eligible: bool [tokens], those that can be among them.
        kept: From the number of eligible tokens of each token's response [tokens], how many are taken.
    """
    counts = kept(over_responses(eligible.long(), responses, "sum"))
    order = values.double().masked_fill(~eligible, torch.inf).argsort(stable=True)
    order = order[responses[order].argsort(stable=True)]
    places = torch.arange(len(values), device=values.device)
    rank = torch.empty_like(places).scatter_(0, order, places) - first_tokens(responses)
    return eligible & (rank < counts)

"""One token of each distribution, by a number that was drawn before: the same token whatever computes it."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_PROBABLE = 512  # tokens that are sorted first for top_p; few distributions of trained models need more
_BLOCK = 128  # tokens whose probabilities are added up in float32
# A number that is nearer to a boundary between two tokens than this may be on its other side in float64. Bound of the error of a
# cumulative share in float32, relative to the whole: that of subtracting the largest logit, 2⁻²⁴ Σ p |x| ≤ 2⁻²⁴ ln(vocabulary) < 8e-7,
# of exp, 2.4e-7, and of adding up a block, 5e-7; twice that, because the whole has the same error; and as much again for dividing by
# a temperature.
_UNSURE = 4e-6


def draw(logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """The tokens at which cumulative probabilities pass the numbers, of the distributions in float64.

    Args:
        logits: [rows, vocabulary].
        numbers: [rows], uniform in [0, 1).
        temperature: Divides the logits.
        top_p: Below 1, only the fewest most probable tokens that hold so much are drawn from.

    Returns:
        [rows]. On a CPU most are found in float32, in a fraction of the time; a number too near to a boundary between two tokens for
        that is looked up in float64.
    """
    if logits.dtype == torch.float64 or logits.device.type != "cpu":
        return draw_in_float64(logits, numbers, temperature, top_p)
    if top_p < 1.0:
        tokens, sure = _draw_from_most_probable(logits.float(), numbers.double(), temperature, top_p)
    else:
        tokens, sure = _draw_from_all(logits.float(), numbers.double(), temperature)
    if not sure.all():
        rows = (~sure).nonzero().squeeze(-1)
        tokens[rows] = draw_in_float64(logits[rows], numbers[rows], temperature, top_p)
    return tokens


def draw_in_float64(logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_p: float = 1.0) -> Tensor:
    """As `draw`, with all sums in float64."""
    p = (logits.double() / temperature).softmax(-1)
    order = None
    if top_p < 1.0:
        p, order = p.sort(dim=-1, descending=True, stable=True)
        p = torch.where(p.cumsum(-1) - p < top_p, p, 0.0)
    sums = p.cumsum(-1)
    total = sums[:, -1:].contiguous()
    places = torch.searchsorted(sums, numbers.to(p.dtype).unsqueeze(-1) * total, right=True)
    places = torch.minimum(places, torch.searchsorted(sums, total))  # rounding may have come up to the total
    return (places if order is None else order.gather(-1, places)).squeeze(-1)


def _draw_from_all(logits: Tensor, numbers: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(tokens [rows], whether float64 surely gives the same [rows])."""
    weights = _weights(logits, temperature)
    ends = _block_sums(weights)
    wanted, total = numbers.unsqueeze(-1) * ends[:, -1:], ends[:, -1:]
    block = torch.searchsorted(ends, wanted, right=True).clamp_max(ends.shape[1] - 1)
    columns = block * _BLOCK + torch.arange(_BLOCK)
    inside = weights.gather(1, columns.clamp_max(weights.shape[1] - 1)).masked_fill(columns >= weights.shape[1], 0.0)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp_min(0)), 0.0)
    place, room = _found(before + inside.double().cumsum(-1), before, wanted)
    return (block * _BLOCK + place).squeeze(-1), (room > _UNSURE * total).squeeze(-1)


def _draw_from_most_probable(
    logits: Tensor, numbers: Tensor, temperature: float, top_p: float
) -> tuple[Tensor, Tensor]:
    """As `_draw_from_all`, of the fewest most probable tokens that hold `top_p`; not sure where these are more than a few hundred."""
    largest, ids = logits.topk(min(_MOST_PROBABLE, logits.shape[1]))
    # Equal ones in the order of their ids, as a stable sort has them.
    ids = ids.sort(dim=-1).values
    largest, order = logits.gather(1, ids).sort(dim=-1, descending=True, stable=True)
    ids = ids.gather(1, order)
    p = ((largest - largest[:, :1]).double() / temperature).exp() / _block_sums(_weights(logits, temperature))[:, -1:]
    sums = p.cumsum(-1)
    before = sums - p
    taken = before < top_p
    last = taken.sum(-1, keepdim=True) - 1
    total = sums.gather(1, last)
    place, room = _found(sums, torch.zeros_like(total), numbers.unsqueeze(-1) * total)
    # Beyond the last of `largest` there may be more like it.
    complete = (largest.gather(1, last) > largest[:, -1:]) & ((before - top_p).abs().amin(-1, keepdim=True) > _UNSURE)
    sure = complete & (place <= last) & (room > _UNSURE)
    return ids.gather(1, place).squeeze(-1), sure.squeeze(-1)


def _weights(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities relative to the largest [rows, vocabulary], float32."""
    weights = logits - logits.amax(-1, keepdim=True)
    return (weights if temperature == 1.0 else weights.div_(temperature)).exp_()


def _block_sums(weights: Tensor) -> Tensor:
    """Cumulative sums at the end of each block of tokens, the last of all tokens, float64 [rows, blocks]."""
    whole = weights.shape[1] // _BLOCK
    blocks = weights[:, : whole * _BLOCK].unflatten(1, (whole, _BLOCK)).sum(-1)
    rest = weights[:, whole * _BLOCK :].sum(-1, keepdim=True)
    return torch.cat([blocks, rest], dim=1).double().cumsum(-1)


def _found(sums: Tensor, before: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """(where cumulative sums [rows, n], before which there is `before`, pass `wanted`; the distance to the nearer boundary), [rows, 1]."""
    place = torch.searchsorted(sums, wanted, right=True).clamp_max(sums.shape[1] - 1)
    below = torch.cat([before, sums], dim=1).gather(1, place)
    return place, torch.minimum(wanted - below, sums.gather(1, place) - wanted)

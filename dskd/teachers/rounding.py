"""How far hidden states of one model may be apart by rounding, by the coarsest dtype that takes part."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

Dtype = str  # the name of a torch dtype

# What two answers of one model to one text may differ by, as a share of their norm. About twice what Gemma 3 270M computed in that
# dtype differs by from itself in float32, in the worst of the probe's texts: 0.063 in bfloat16 (0.0018 of that on the wire), 0.015 in
# float16; in float32, vLLM from transformers 1e-7 for small models. Noise of a thousandth on all weights is 0.047, another checkpoint 1
# and more.
STATES: dict[Dtype, float] = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 0.13}
_ORDER = tuple(STATES)  # from fine to coarse


def computed_in(hidden: Tensor) -> Dtype:
    """The coarsest dtype that holds all of these numbers exactly: a server that computes in it answers with nothing else.

    What it computes in stands in none of its answers. `hidden`: finite, of any dtype.
    """
    wide = hidden.double()
    for dtype in (torch.bfloat16, torch.float16):
        if bool((hidden.to(dtype).double() == wide).all()):
            return str(dtype).removeprefix("torch.")
    return "float32"


def coarsest(dtypes: Iterable[Dtype]) -> Dtype:
    """The one of these dtypes that rounds the most."""
    return max(dtypes, key=_ORDER.index)

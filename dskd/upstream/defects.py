"""What published code does otherwise, defect by defect, so that the cost of each can be measured by itself (docs/method.md).

A code base is the sum of its defects: `dskdv2` (songmzhang/DSKDv2) and `kdflow` (songmzhang/KDFlow).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

# In the order in which they are written down, so that two orders of one list are the same setting.
DEFECTS = {
    "string_alignment": "tokens pair by their spelling and not by their bytes",
    "dskdv2_token_lookup": "a prediction is looked up by its spelling; an unknown one becomes the student's unknown token",
    "kdflow_token_lookup": "the same with one sign for a leading space; an unknown one is dropped",
    "micro_batch_means": "some terms are means over a micro-batch, each of which counts the same",
    "stale_head": "both projectors follow the student's head as it was at the start",
}
CODE_BASES = {
    "none": (),
    "dskdv2": ("string_alignment", "dskdv2_token_lookup", "micro_batch_means"),
    "kdflow": ("string_alignment", "kdflow_token_lookup", "micro_batch_means", "stale_head"),
}


def canonical(value: Any) -> str | tuple[str, ...]:
    """A code base's name, or defects in the order of DEFECTS, of a list or text with commas between; ValueError for others."""
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"is {value!r}; fix: a code base ({', '.join(CODE_BASES)}) or a list of {', '.join(DEFECTS)}")
    if len(names) == 1 and names[0] in CODE_BASES:
        return str(names[0])
    for name in names:
        if name in CODE_BASES:
            raise ValueError(
                f"'{name}' is a sum of defects; fix: write it alone, or list {', '.join(CODE_BASES[name]) or 'nothing'}"
            )
        if name not in DEFECTS:
            near = difflib.get_close_matches(name, [*DEFECTS, *CODE_BASES], n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(
                f"no defect '{name}'{hint}; fix: {', '.join(CODE_BASES)} or a list of {', '.join(DEFECTS)}"
            )
    chosen = tuple(name for name in DEFECTS if name in names)
    if {"dskdv2_token_lookup", "kdflow_token_lookup"} <= set(chosen):
        raise ValueError("two look-ups of a prediction stand beside each other; fix: one of the two")
    return next((name for name, defects in CODE_BASES.items() if defects == chosen), chosen)


def defects(parity: str | tuple[str, ...]) -> frozenset[str]:
    """The single defects that a canonical value stands for."""
    return frozenset(CODE_BASES[parity] if isinstance(parity, str) else parity)


UpstreamParity = Annotated[str | tuple[str, ...], BeforeValidator(canonical)]

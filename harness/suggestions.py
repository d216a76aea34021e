"""What an error says about a name that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'kd'? (known: kd, sft)`, or only what is known where no name is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    listing = ", ".join(known) if known else "none"
    return f"; did you mean '{near[0]}'? (known: {listing})" if near else f"; known: {listing}"

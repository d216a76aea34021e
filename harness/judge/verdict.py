"""How a reply of the judge is read: its last line is the verdict, or there is none. Nothing is guessed."""

from __future__ import annotations

import re
from typing import Literal

from harness.judge.pairs import Order
from harness.metrics.own_answer import after_reasoning

Verdict = Literal["1", "2", "tie"]
Winner = Literal["A", "B", "tie"]

# What a server with `--choices` may answer.
CHOICES = ("Verdict: 1", "Verdict: 2", "Verdict: tie")
# Of the last line; Markdown's marks and a full stop change nothing.
_LINE = re.compile(r"[*_`#>\s]{0,16}verdict:[*_`\s]{0,16}(1|2|tie)[*_`.\s]{0,16}", re.IGNORECASE)
_LONGEST_LINE = 80


def read_verdict(reply: str, finish_reason: str | None) -> Verdict | None:
    """Return the verdict of a reply, or None where it has none.

    The verdict is the last line that is not blank, of what follows the judge's reasoning. A reply that was cut off
    (`finish_reason` "length") has none, even if what is there ends with such a line.
    """
    if finish_reason == "length":
        return None
    line = after_reasoning(reply).rstrip().rpartition("\n")[2]
    match = _LINE.fullmatch(line) if len(line) <= _LONGEST_LINE else None
    if match is None:
        return None
    return {"1": "1", "2": "2", "tie": "tie"}[match.group(1).lower()]  # type: ignore[return-value]


def winner_of(verdict: Verdict | None, order: Order) -> Winner | None:
    """Return whose answer a verdict prefers, of a request in this order."""
    if verdict is None or verdict == "tie":
        return verdict
    return "A" if (verdict == "1") == (order == "AB") else "B"

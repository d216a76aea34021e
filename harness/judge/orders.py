"""Both orders of a pair to one outcome, and what they show about the judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.judge.verdict import Verdict, Winner

# reversed: A in one order, B in the other. half: a winner in one order, a tie in the other.
Consistency = Literal["agree", "half", "reversed"]


@dataclass(frozen=True)
class Outcome:
    """A pair's outcome: `winner` is None where a verdict could not be read, in either order."""

    winner: Winner | None
    consistency: Consistency | None

    @property
    def preference(self) -> float | None:
        """1 for A, 0 for B, 0.5 for a tie."""
        return None if self.winner is None else {"A": 1.0, "tie": 0.5, "B": 0.0}[self.winner]


def combine(first: Winner | None, second: Winner | None) -> Outcome:
    """Combine the winners of the two orders: the same is the outcome, any other two are a tie."""
    if first is None or second is None:
        return Outcome(None, None)
    if first == second:
        return Outcome(first, "agree")
    return Outcome("tie", "half" if "tie" in (first, second) else "reversed")


def position(
    verdicts: Iterable[Verdict | None], pairs: Sequence[tuple[Verdict | None, Verdict | None]]
) -> dict[str, Any]:
    """Return how the judge leans to a position.

    Args:
        verdicts: All of them.
        pairs: The verdicts of both orders of each pair. Without a lean, as many pairs have twice "1" as twice "2"; `p` is of the
            exact sign test of that. A pair that is judged alike in both orders has each once.
    """
    from scipy.stats import binomtest

    read = [verdict for verdict in verdicts if verdict is not None]
    first, second, tie = (read.count(each) for each in ("1", "2", "tie"))
    twice_first, twice_second = (sum(both == (each, each) for both in pairs) for each in ("1", "2"))
    decided, always = first + second, twice_first + twice_second
    return {
        "first": first,
        "second": second,
        "tie": tie,
        "first_share": 100 * first / decided if decided else None,
        "first_in_both_orders": twice_first,
        "second_in_both_orders": twice_second,
        "p": float(binomtest(twice_first, always).pvalue) if always else None,
    }

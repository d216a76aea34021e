"""The pairs that a judge compares, and the order in which a request shows one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Order = Literal["AB", "BA"]
ORDERS: tuple[Order, Order] = ("AB", "BA")


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, without white space at their ends. `index` counts the samples of a prompt from 0."""

    id: str
    index: int
    question: str
    a: str
    b: str

    @property
    def key(self) -> tuple[str, int]:
        """Which pair it is."""
        return self.id, self.index


@dataclass(frozen=True)
class Question:
    """One thing to ask: a pair in one order. `repeat` is 0, and 1 where the judge is asked the same again."""

    pair: Pair
    order: Order
    repeat: int = 0

    @property
    def key(self) -> tuple[str, int, Order, int]:
        """Which question it is."""
        return (*self.pair.key, self.order, self.repeat)

    @property
    def shown(self) -> tuple[str, str]:
        """The answers in the order in which the judge sees them."""
        return (self.pair.a, self.pair.b) if self.order == "AB" else (self.pair.b, self.pair.a)


def questions(pairs: Sequence[Pair], repeats: int, seed: int) -> list[Question]:
    """Return both orders of every pair, and then both orders of `repeats` of them once more.

    Those are chosen by a hash of the seed and the pair, so that a larger number has the smaller one's pairs and some more.
    """
    again = sorted(pairs, key=lambda pair: hashlib.sha256(f"{seed}/{pair.id}/{pair.index}".encode()).digest())[:repeats]
    first = [Question(pair, order) for pair in pairs for order in ORDERS]
    return first + [Question(pair, order, repeat=1) for pair in again for order in ORDERS]

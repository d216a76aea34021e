"""Values of tokens to sums of texts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dskd.losses.tokens import SideTokens

# Of a text: by name a sum, and what divides it.
Numbers = dict[str, tuple[float, float]]


class Sums:
    """Sums over the tokens of each text of a batch, in float64."""

    def __init__(self, texts: int) -> None:
        self._items: list[Numbers] = [{} for _ in range(texts)]

    def of_items(self) -> list[Numbers]:
        """By text, what was added."""
        return self._items

    def put(self, name: str, totals: Sequence[float], counts: Sequence[float]) -> None:
        """A sum and a count of each text."""
        for item, total, count in zip(self._items, totals, counts, strict=True):
            item[name] = (float(total), float(count))

    def add(self, name: str, side: SideTokens, values: Tensor, places: Tensor | None = None) -> None:
        """The sum of values [tokens], or [pairs] with the tokens that these are, and their number."""
        ones = torch.ones_like(values)
        self.put(name, self.total(side, values, places), self.total(side, ones, places))

    def counted(self, side: SideTokens, places: Tensor) -> list[float]:
        """How many of these tokens each text has."""
        return self.total(side, torch.ones(len(places), device=places.device), places)

    def total(self, side: SideTokens, values: Tensor, places: Tensor | None = None) -> list[float]:
        """The sum of each text."""
        owner = torch.arange(len(self._items)).repeat_interleave(side.sizes.cpu())
        if places is not None:
            owner = owner[places.cpu()]
        sums = torch.zeros(len(self._items), dtype=torch.float64)
        return [float(value) for value in sums.index_add(0, owner, values.double().cpu()).tolist()]

    def first_of(self, side: SideTokens, values: Tensor, counts: Sequence[int]) -> list[float]:
        """The sum of the first so many tokens of each text."""
        parts = values.double().cpu().split(side.sizes.cpu().tolist())
        return [float(part[:count].sum()) for part, count in zip(parts, counts, strict=True)]

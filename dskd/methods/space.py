"""What of a method is tuned, and over which values. A method says it as data, `space`; nothing here imports torch.

    space = {"temperature": Log(0.5, 4.0), "kd_rate": Uniform(0.3, 1.0), "divergence": Choice("forward_kl", "reverse_kl")}

A key is an option of the method, or `training.OPTION`. Values are drawn from a point of the unit cube, a coordinate for each option
(docs/tuning.md), and rounded to three digits, so that what was tried can be written down and tried again.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DIGITS = 3


class Range(ABC):
    """The values that an option may take."""

    @abstractmethod
    def value(self, position: float, default: Any) -> Any:
        """The value at a position.

        Args:
            position: From 0 up to 1, without 1.
            default: What the option has where it is not tuned.
        """

    @property
    @abstractmethod
    def text(self) -> str:
        """The range in words, for tables."""


@dataclass(frozen=True)
class Uniform(Range):
    """Any number between two, each as likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self.low, self.high)

    def value(self, position: float, default: Any) -> float:
        return _rounded(self.low + position * (self.high - self.low))

    @property
    def text(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Log(Range):
    """Any number between two above 0, each ratio as likely."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self.low, self.high, above=0.0)

    def value(self, position: float, default: Any) -> float:
        return _rounded(self.low * (self.high / self.low) ** position)

    @property
    def text(self) -> str:
        return f"{self.low:g} to {self.high:g}, by ratio"


@dataclass(frozen=True)
class Factor(Range):
    """The default times a number between two above 0, each ratio as likely: for what depends on the models, as a learning rate does."""

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_order(self.low, self.high, above=0.0)

    def value(self, position: float, default: Any) -> float:
        return _rounded(float(default) * self.low * (self.high / self.low) ** position)

    @property
    def text(self) -> str:
        return f"the default times {self.low:g} to {self.high:g}, by ratio"


class Choice(Range):
    """One of several values, each as likely."""

    def __init__(self, *values: Any) -> None:
        if not values:
            raise ValueError("a choice of no values")
        self.values = values

    def value(self, position: float, default: Any) -> Any:
        return self.values[min(int(position * len(self.values)), len(self.values) - 1)]

    @property
    def text(self) -> str:
        return " or ".join(map(_word, self.values))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and other.values == self.values

    def __hash__(self) -> int:
        return hash(self.values)

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.values))})"


def _check_order(low: float, high: float, above: float = -math.inf) -> None:
    if not above < low < high < math.inf:
        raise ValueError(f"{low:g} to {high:g} is no range{f' above {above:g}' if above > -math.inf else ''}")


def _word(value: Any) -> str:
    """A value as a matrix writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


Space = Mapping[str, Range]

# What every training has. A good learning rate depends on the models more than on the method, so it is one around the matrix's.
EVERY_TRAINING: Space = {"training.learning_rate": Factor(0.25, 4.0)}
# What a student samples, where the loss does not depend on how probable that was (`Requirements.exact_sampling`).
WITH_OWN_TEXT: Space = {"training.rollouts.temperature": Uniform(0.6, 1.0)}
WITH_PROJECTORS: Space = {"training.projector_learning_rate": Factor(0.1, 10.0)}

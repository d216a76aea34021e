"""Halving: of all trials, which are trained for how long before the worse half is dropped."""

from __future__ import annotations

import math
from dataclasses import dataclass

_SHARES = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Rung:
    """Trials that are trained up to a share of the steps, and then compared.

    Attributes:
        share: Of the steps, counted from the start.
        trials: How many get so far.
    """

    share: float
    trials: int


def rungs(trials: int, *, halving: bool) -> list[Rung]:
    """The rungs of so many trials.

    With halving, all train a quarter of the steps, the better half goes on to half of them, and the better half of these to the end.
    """
    if not halving or trials < 2:
        return [Rung(1.0, trials)]
    return [Rung(share, math.ceil(trials / 2**number)) for number, share in enumerate(_SHARES)]


def whole_trainings(steps: list[Rung]) -> float:
    """What these rungs cost, in whole trainings: each goes on from where it was."""
    before, total = 0.0, 0.0
    for rung in steps:
        total += rung.trials * (rung.share - before)
        before = rung.share
    return total


def most_trials(budget: float, *, halving: bool) -> int:
    """The most trials that cost no more than `budget` whole trainings; one where even that costs more."""
    trials = 1
    while whole_trainings(rungs(trials + 1, halving=halving)) <= budget + 1e-9:
        trials += 1
    return trials

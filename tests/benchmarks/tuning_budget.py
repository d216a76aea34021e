"""What tuning gains by its budget: whole trials against halving at equal cost, the number of trials, of validation items.

    PYTHONPATH=tests python tests/benchmarks/tuning_budget.py [--repeats 2000] [--json FILE]

Methods are random and their truth is known (helpers/tuning_world.py).
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.tuning.rungs import most_trials, rungs, whole_trainings
from helpers.tuning_procedure import choose
from helpers.tuning_world import Scenario, difficulties, print_table, worlds


@dataclass(frozen=True)
class Worth:
    """Of the chosen setting: how much better than the default it is, how far below the best of 1,024, its standard deviation over
    tuning seeds, and how much its validation score promises too much. Means over tasks in points; `error` that of `gain`.
    """

    trials: int
    cost: float
    halving: bool
    early: float
    validation: int
    gain: float
    error: float
    below_best: float
    tuning_sd: float
    promised: float


def worth(scenario: Scenario, repeats: int, *, seed: int = 0) -> Worth:
    """What one method gains by tuning."""
    gains, below, variances, promised = [], [], [], []
    scenario = replace(scenario, methods=1, draws=2, tunings=4)
    for (method,), random in worlds(scenario, max(2, repeats // scenario.tunings), seed):
        chosen, scores = choose(
            method, method.items(difficulties(scenario, scenario.validation, random), scenario.trials)
        )
        quality = method.of_chosen(chosen).mean(axis=-1)
        gains.append((quality - method.truth[:, :, 0].mean(axis=-1)).mean())
        below.append(method.best() - quality.mean())
        variances.append(quality.var(axis=1, ddof=1).mean())
        promised.append((scores.mean(axis=-1) - quality).mean())
    steps = rungs(scenario.trials, halving=scenario.halving)
    return Worth(
        scenario.trials,
        whole_trainings(steps),
        scenario.halving,
        scenario.early[0],
        scenario.validation,
        _mean(gains),
        float(np.std(gains, ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else math.nan,
        _mean(below),
        math.sqrt(_mean(variances)),
        _mean(promised),
    )


def at_equal_cost(repeats: int, budgets: tuple[float, ...] = (3, 6, 12)) -> list[Worth]:
    """Whole trials, and more of them with halving, for as many whole trainings."""
    found = []
    for budget in budgets:
        found.append(worth(Scenario(trials=most_trials(budget, halving=False), halving=False), repeats))
        for early in ((0.5, 0.8), (0.7, 0.9), (0.9, 0.97)):
            found.append(worth(Scenario(trials=most_trials(budget, halving=True), early=early), repeats))
    return found


def budgets(repeats: int) -> list[Worth]:
    """What trials and validation items bring."""
    return [
        worth(Scenario(trials=trials, validation=validation), repeats)
        for trials in (4, 8, 16, 32)
        for validation in (50, 200, 800)
    ]


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    start = time.perf_counter()
    print("Whole trials, and more of them with halving, at equal cost\n")
    found = {"halving": print_table(at_equal_cost(options.repeats))}
    print("\nTrials and validation items\n")
    found["budget"] = print_table(budgets(options.repeats))
    print(f"\n{options.repeats} repeats. {time.perf_counter() - start:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

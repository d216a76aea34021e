"""How often files of claims answer wrongly where the truth is known: simulated methods, trained with seeds, tested on three tasks.

A method's seed makes its scores on all tasks a little better or worse, and on each task a little more (`--seed-sd`, `--task-sd`, in
points); those of the method that all are compared with by `--ratio` times as much. The truth is that of the method over all seeds and
items. Each repeat is a file of claims with one test each:

    equal        all methods are equal: `any` is the share of files with a wrong answer, which Holm's correction keeps below 5 %
    half         half of the methods are better by `--effect` points; answers that are wrong, and those that find it
    margin       as-good claims about methods that are apart by exactly the margin: how often they hold

    python tests/benchmarks/claims_false_alarms.py --repeats 1000
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product

import numpy as np

from harness.results.item_scores import ItemScores
from harness.statistics.joined_tasks import JoinedDifference, Outcome, TaskScores, as_good_as, better_than, join

ALPHA = 0.05
# Of each task: whether scores are right or wrong, and the mean of the methods.
TASKS = (("code", True, 55.0), ("instruct", False, 60.0), ("math", True, 45.0))


@dataclass(frozen=True)
class Measured:
    """Shares in per cent.

    Attributes:
        alone: Of tests of equal methods, those with p < 0.05 without correction.
        covered: Of 95 % intervals, those with the truth in them.
        any: Of files about equal methods, those with an answer at all, which is wrong.
        wrong: Of files where half of the methods are better, those with a wrong answer.
        found: Of the better methods, those that are found, corrected.
        as_good: Of claims about methods a margin apart, those that hold without correction.
    """

    seeds: int
    items: int
    seed_sd: float
    task_sd: float
    ratio: float
    methods: int
    repeats: int
    alone: float
    covered: float
    any: float
    wrong: float
    found: float
    as_good: float


class World:
    """Draws the scores of methods on all tasks, of the same items."""

    def __init__(self, seeds: int, items: int, seed_sd: float, task_sd: float, random: np.random.Generator) -> None:
        self.seeds, self.items, self.random = seeds, items, random
        self.seed_sd, self.task_sd = seed_sd, task_sd

    def methods(self, effects: list[float], ratio: float = 1.0) -> list[list[ItemScores]]:
        """For each method, whose mean is so many points above the usual, its scores on each task. ratio: of the first one's seeds."""
        difficulty = [self.random.normal(0, 12, self.items) for _ in TASKS]
        return [[*self._scores(effect, difficulty, 1.0 if k else ratio)] for k, effect in enumerate(effects)]

    def _scores(self, effect: float, difficulty: list[np.ndarray], ratio: float) -> Iterator[ItemScores]:
        of_seeds = self.random.normal(0, ratio * self.seed_sd, (self.seeds, 1))
        for (_, binary, mean), items in zip(TASKS, difficulty, strict=True):
            own = self.random.normal(0, self.task_sd, (self.seeds, 1))
            suits = self.random.normal(0, 6, self.items)
            values = mean + effect + of_seeds + own + items + suits + self.random.normal(0, 6, (self.seeds, self.items))
            if binary:
                values = 100.0 * (100 * self.random.random((self.seeds, self.items)) < values)
            yield ItemScores(tuple(map(str, range(self.items))), tuple(range(self.seeds)), values)


def joined(a: list[ItemScores], b: list[ItemScores]) -> JoinedDifference:
    """Two methods over the tasks."""
    return join([TaskScores(name, left, right) for (name, _, _), left, right in zip(TASKS, a, b, strict=True)])


def _answers(outcomes: list[tuple[float, Outcome]]) -> list[Outcome | None]:
    """The answers that Holm's step-down gives, without what statsmodels' own does besides: it collects garbage each time."""
    answers: list[Outcome | None] = [None] * len(outcomes)
    order = sorted(range(len(outcomes)), key=lambda place: outcomes[place][0])
    for rank, place in enumerate(order):
        if outcomes[place][0] * (len(outcomes) - rank) >= ALPHA:
            break
        answers[place] = outcomes[place][1]
    return answers


def measure(
    seeds: int,
    items: int,
    seed_sd: float,
    task_sd: float,
    *,
    ratio: float = 1.0,
    methods: int = 6,
    effect: float = 8.0,
    repeats: int = 200,
    seed: int = 0,
) -> Measured:
    """Simulate `repeats` files of claims of each kind: each method against one that is as usual."""
    world = World(seeds, items, seed_sd, task_sd, np.random.default_rng(seed))
    alone = covered = some = wrong = found = as_good = 0
    better = methods // 2
    for _ in range(repeats):
        base, *others = world.methods([0.0] * (methods + 1), ratio)
        tests = [joined(other, base) for other in others]
        outcomes = [better_than(test) for test in tests]
        alone += sum(p < ALPHA for p, _ in outcomes)
        covered += sum(low <= 0 <= high for low, high in (test.interval() for test in tests))
        some += any(_answers(outcomes))
        base, *others = world.methods([0.0, *([effect] * better), *([0.0] * (methods - better))], ratio)
        outcomes = [better_than(joined(other, base)) for other in others]
        answers = _answers(outcomes)
        found += answers[:better].count("holds")
        wrong += "fails" in answers[:better] or any(answers[better:])
        base, other = world.methods([0.0, effect], ratio)
        p_value, outcome = as_good_as(joined(other, base), effect)
        as_good += outcome == "holds" and p_value < ALPHA
    shares = (
        alone / methods, covered / methods, some, wrong, found / better, as_good,
    )  # fmt: skip
    percent = [round(100 * share / repeats, 1) for share in shares]
    return Measured(seeds, items, seed_sd, task_sd, ratio, methods, repeats, *percent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--methods", type=int, default=6)
    parser.add_argument("--effect", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[4, 5])
    parser.add_argument("--items", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--seed-sd", type=float, nargs="+", default=[0.0, 1.0, 4.0])
    parser.add_argument("--task-sd", type=float, default=2.0)
    parser.add_argument("--ratio", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    names = list(Measured.__dataclass_fields__)
    if not given.json:
        print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
    for seeds in given.seeds:
        for items, seed_sd, ratio in product(given.items, given.seed_sd, given.ratio):
            found = measure(
                seeds, items, seed_sd, given.task_sd if seed_sd else 0.0,
                ratio=ratio, methods=given.methods, effect=given.effect, repeats=given.repeats, seed=given.seed,
            )  # fmt: skip
            row = asdict(found)
            print(json.dumps(row) if given.json else "| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    main()

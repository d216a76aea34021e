"""How small a difference five seeds find with more test items: estimated from the spread of seeds and items in committed results.

    python tests/benchmarks/items_needed.py [--results results/leaderboard] [--items 100 400]

For every two methods of a pair on a task, the variance of their difference is split into that of seeds, of items and the rest
(harness/statistics/variance_components.py). With N items the last two are divided by N; seeds stay as they are. What is found with
80 % power is then about 2.8 standard errors (normal quantiles 1.96 and 0.84). The table has the median over all two methods.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from statistics import NormalDist, median

import numpy as np

from harness.results.load import load_results
from harness.tables.comparison import item_scores_of_cells

FACTOR = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/leaderboard"))
    parser.add_argument("--items", type=int, nargs="+", default=[100, 400])
    arguments = parser.parse_args()
    print("| task | " + " | ".join(f"{count} items" for count in arguments.items) + " | any number |")
    print("|---|" + "---|" * (len(arguments.items) + 1))
    for task, effects in sorted(found(arguments.results, [*arguments.items, 10**9]).items()):
        print(f"| {task} | " + " | ".join(f"{median(column):.1f}" for column in zip(*effects, strict=True)) + " |")


def found(results: Path, counts: Sequence[int]) -> dict[str, list[list[float]]]:
    """For each task and every two methods of a pair, the effect that is found with so many items each."""
    cells, _ = item_scores_of_cells(load_results(results))
    columns: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
    for cell, scores in cells.items():
        if cell.student is not None and len(scores.seeds) > 1:
            columns[cell.student, cell.task].append(scores.values)
    effects: dict[str, list[list[float]]] = defaultdict(list)
    for (_, task), methods in columns.items():
        effects[task] += [list(of_two(a, b, counts)) for a, b in combinations(methods, 2)]
    return effects


def of_two(a: np.ndarray, b: np.ndarray, counts: Sequence[int]) -> Iterator[float]:
    """The effect that a comparison of two methods finds; a, b: scores [seeds, items]."""
    seeds, items = a.shape
    (seed_a, rest_a), (seed_b, rest_b) = (components(scores) for scores in (a, b))
    rest = rest_a + rest_b
    item = max((a.mean(axis=0) - b.mean(axis=0)).var(ddof=1) - rest / seeds, 0.0)
    seed = max(seed_a - rest_a / items, 0.0) + max(seed_b - rest_b / items, 0.0)
    for count in counts:
        yield FACTOR * float(np.sqrt(seed / seeds + item / count + rest / (seeds * count)))


def components(scores: np.ndarray) -> tuple[float, float]:
    """(variance of seed means, variance of the rest)."""
    of_seeds, of_items = scores.mean(axis=1, keepdims=True), scores.mean(axis=0, keepdims=True)
    rest = scores - of_seeds - of_items + scores.mean()
    return float(of_seeds.var(ddof=1)), float((rest**2).sum() / ((scores.shape[0] - 1) * (scores.shape[1] - 1)))


if __name__ == "__main__":
    main()

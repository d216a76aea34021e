"""How often 95 % intervals hold the truth, and how often tests cry out over nothing: simulated evaluations whose truth is known.

Items have a difficulty, a method has items that suit it, a seed makes all of a method's items a little better or worse, and the
rest is noise. The truth is that of the method: over all seeds and all items that there could be, not of the seeds and items drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.results.item_scores import ItemScores, Kind
from harness.statistics.intervals import bootstrap_interval, wilson_interval
from harness.statistics.paired_tests import compare
from harness.statistics.variance_components import mean_interval

# Standard deviations on the logit scale: of items, of what suits a method, and of the rest of one answer.
USUAL = (1.2, 0.6, 0.8)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@dataclass(frozen=True)
class Measured:
    """Shares over `repeats` simulated comparisons, in per cent.

    `mean`: intervals of one method's mean that hold its truth. `difference`: the same of the difference of two methods. `alarms`:
    p < 0.05 where the two are equal; `alarms_less` the same one-sided. `power`: p < 0.05 where they differ by the minimum detectable effect that equal
    methods of this size report. `two_level`: coverage of the percentile bootstrap over seeds, then items, for comparison.
    """

    kind: str
    seeds: int
    items: int
    seed_sd: float
    repeats: int
    mean: float
    difference: float
    alarms: float
    alarms_less: float
    power: float
    two_level: float


class World:
    """Draws evaluations. `seed_sd` is in points of the mean score; `centre` the logit of a usual item."""

    def __init__(
        self,
        kind: Kind,
        seed_sd: float,
        centre: float,
        random: np.random.Generator,
        spreads: tuple[float, float, float] = USUAL,
    ) -> None:
        self.kind, self.random, self.seed_sd = kind, random, seed_sd
        self.item, self.suits, self.rest = spreads
        self.others = self.item**2 + self.suits**2 + self.rest**2
        self.seed = 0.0 if seed_sd == 0 else self._solve(lambda logit: self._sd_of(centre, logit) - seed_sd, 0.0, 5.0)

    def truth(self, centre: float) -> float:
        """The mean over all seeds and items, 0 to 100."""
        return self._mean(centre, self.others + self.seed**2)

    def centre_of(self, truth: float) -> float:
        """The logit that has this mean."""
        return self._solve(lambda centre: self.truth(centre) - truth, -12.0, 12.0)

    def draw(self, centres: tuple[float, ...], seeds: int, items: int) -> list[ItemScores]:
        """One evaluation of a method for each centre, all on the same items."""
        difficulty = self.random.normal(0, self.item, items)
        found = []
        for centre in centres:
            logits = (
                centre
                + difficulty
                + self.random.normal(0, self.suits, items)
                + self.random.normal(0, self.seed, (seeds, 1))
            )
            chances = 1 / (1 + np.exp(-(logits + self.random.normal(0, self.rest, (seeds, items)))))
            values = 100.0 * (self.random.random((seeds, items)) < chances if self.kind == "binary" else chances)
            found.append(ItemScores(tuple(map(str, range(items))), tuple(range(seeds)), values))
        return found

    @staticmethod
    def _mean(centre: float, variance: float) -> float:
        return float(100 * (_WEIGHTS / (1 + np.exp(-(centre + math.sqrt(variance) * _NODES)))).sum())

    def _sd_of(self, centre: float, logit: float) -> float:
        """Standard deviation, in points, of the seeds' means."""
        means = np.array([self._mean(centre + logit * node, self.others) for node in _NODES])
        return math.sqrt(max(0.0, float((_WEIGHTS * means**2).sum() - (_WEIGHTS * means).sum() ** 2)))

    @staticmethod
    def _solve(function: Callable[[float], float], low: float, high: float) -> float:
        from scipy.optimize import brentq

        return float(brentq(function, low, high))


def measure(
    kind: Kind,
    seeds: int,
    items: int,
    seed_sd: float,
    *,
    repeats: int,
    centre: float = -0.7,
    spreads: tuple[float, float, float] = USUAL,
    seed: int = 0,
    resamples: int = 1000,
    two_level: bool = False,
) -> Measured:
    """Simulate `repeats` pairs of equal methods, and as many that differ by the minimum detectable effect of the first."""
    world = World(kind, seed_sd, centre, np.random.default_rng(seed), spreads)
    truth = world.truth(centre)
    hits = dict.fromkeys(("mean", "difference", "alarms", "alarms_less", "power", "two_level"), 0)
    effects = []
    for repeat in range(repeats):
        a, b = world.draw((centre, centre), seeds, items)
        found = compare(a, b, kind, seed=repeat, resamples=resamples)
        hits["difference"] += found.ci95[0] <= 0 <= found.ci95[1]
        hits["alarms"] += found.p_value < 0.05
        hits["alarms_less"] += found.p_less < 0.05
        low, high = _mean_interval(a, kind, repeat, resamples)
        hits["mean"] += low <= truth <= high
        effects.append(found.min_detectable_effect)
        if two_level and seeds > 1:
            low, high = two_level_bootstrap(a.values, b.values, np.random.default_rng(repeat))
            hits["two_level"] += low <= 0 <= high
    better = world.centre_of(min(99.0, truth + float(np.mean(effects))))
    for repeat in range(repeats):
        a, b = world.draw((better, centre), seeds, items)
        hits["power"] += compare(a, b, kind, seed=repeat, resamples=resamples).p_value < 0.05
    shares = {name: round(100 * count / repeats, 1) for name, count in hits.items()}
    return Measured(
        kind,
        seeds,
        items,
        seed_sd,
        repeats,
        **(shares if two_level and seeds > 1 else shares | {"two_level": math.nan}),
    )


def _mean_interval(scores: ItemScores, kind: Kind, seed: int, resamples: int) -> tuple[float, float]:
    """What tables show for one method."""
    if len(scores.seeds) > 1:
        return mean_interval(scores.values)
    values = scores.values[0]
    if kind == "binary":
        low, high = wilson_interval(int((values == 100).sum()), values.size)
        return 100 * low, 100 * high
    return bootstrap_interval(values, seed=seed, resamples=resamples)


def two_level_bootstrap(
    a: np.ndarray, b: np.ndarray, random: np.random.Generator, resamples: int = 500
) -> tuple[float, float]:
    """Percentile interval of the difference of values [seeds, items]: seeds drawn for each method, items for both alike."""
    items = random.multinomial(a.shape[1], np.full(a.shape[1], 1 / a.shape[1]), resamples) / a.shape[1]
    means = []
    for rows in (a, b):
        seeds = random.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), resamples) / len(rows)
        means.append(np.einsum("rs,rs->r", seeds, items @ rows.T))
    low, high = np.quantile(means[0] - means[1], (0.025, 0.975))
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Example: python tests/benchmarks/statistics_coverage.py --repeats 1000 --json coverage.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--items", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--seed-sd", type=float, nargs="+", default=[0.0, 1.0, 4.0])
    parser.add_argument("--centre", type=float, default=-0.7, help="logit of a usual item; -0.7: means near 37")
    parser.add_argument(
        "--spreads",
        type=float,
        nargs=3,
        default=USUAL,
        metavar=("ITEM", "SUITS", "REST"),
        help="standard deviations in logits: of items, of what suits a method, of one answer; the usual: 1.2 0.6 0.8",
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    start, rows = time.perf_counter(), []
    print(
        "| scores | seeds | items | seed sd | mean | difference | false alarms | one-sided | power at the MDE | two-level bootstrap |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind in ("binary", "continuous"):
        for seeds in options.seeds:
            for items in options.items:
                for sd in options.seed_sd:
                    row = measure(
                        kind,
                        seeds,
                        items,
                        sd,
                        repeats=options.repeats,
                        centre=options.centre,
                        spreads=tuple(options.spreads),
                        two_level=True,
                    )
                    rows.append(asdict(row))
                    shown = (row.mean, row.difference, row.alarms, row.alarms_less, row.power, row.two_level)
                    print(
                        f"| {kind} | {seeds} | {items} | {sd:g} | {' | '.join(f'{value:.1f}' for value in shown)} |",
                        flush=True,
                    )
    error = 100 * math.sqrt(0.05 * 0.95 / options.repeats)
    seconds = time.perf_counter() - start
    print(f"\n{options.repeats} repeats a line: standard error of a share near 95 % {error:.1f}. {seconds:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

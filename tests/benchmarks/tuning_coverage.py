"""The whole of tuning with a known truth: trials, halving, choice on validation items, fresh seeds, one test on other items.

    PYTHONPATH=tests python tests/benchmarks/tuning_coverage.py [--repeats 2000] [--only claims mistakes] [--items 200] [--seed-sd 2] [--json FILE]

Methods are random (helpers/tuning_world.py); tests and intervals are those of `harness compare`. Two things are true of methods A and B:
the difference of the two settings that were chosen, and the difference of what tuning with this budget chooses on average.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from harness.statistics.variance_components import mean_interval
from helpers.tuning_procedure import any_rejected, choose, comparison
from helpers.tuning_world import BINARY, TRIAL_SEED, Array, Method, Scenario, difficulties, print_table, taken, worlds

FRESH = (0, 1, 2, 3, 4)  # as in `seeds` of a matrix
TASKS = range(len(BINARY))
Hits = dict[str, list[float]]
# Of each mistake: what is reported of the first method, what of the others, and the mistake in words.
MISTAKES = {
    "none": ("none", "none", "none: chosen on validation items, three fresh seeds, tested once on other items"),
    "trial_seed": ("trial_seed", "trial_seed", "the trial's training is one of the three seeds"),
    "test_items": ("test_items", "test_items", "chosen on the test items, three fresh seeds"),
    "one_seed": ("one_seed", "one_seed", "one fresh seed"),
    "trial_alone": ("trial_alone", "trial_alone", "the trial's training is tested, not trained anew"),
    "best_trial": ("best_trial", "best_trial", "the trial that is best on the test items"),
    "default_rivals": ("none", "default", "as without mistake, but the rivals have their defaults"),
    "best_trial_default_rivals": (
        "best_trial",
        "default_one_seed",
        "the best trial on the test items; rivals' defaults",
    ),
}


@dataclass(frozen=True)
class Claim:
    """Shares in per cent over simulated comparisons of the first method with each of the others on each task; widths in points.

    `seeds`: fresh ones of each tuning seed. `mean`, `difference`: intervals that hold the truth. `alarms`: families of tests, by Holm, with
    a rejection of what is true. `half_width`: of the difference's interval, the median. `about`: what is true, `settings` or `procedure`.
    """

    about: str
    effect_sd: float
    seed_sd: float
    tunings: int
    seeds: int
    mean: float
    difference: float
    alarms: float
    half_width: float


@dataclass(frozen=True)
class Mistake:
    """What is reported less what is true, in points, of the first method's mean and of its differences; the rest as in `Claim`."""

    mistake: str
    effect_sd: float
    optimism: float
    mean: float
    favour: float
    difference: float
    alarms: float


def claims(scenario: Scenario, repeats: int, *, seeds: tuple[int, ...] = (2, 3, 5), seed: int = 0) -> list[Claim]:
    """How often intervals hold either truth: with one tuning seed and several fresh ones, and with one fresh one of each of several tuning seeds."""
    designs = [(1, number) for number in seeds] + [(number, 1) for number in (3, 5) if number <= scenario.tunings]
    found: dict[tuple[str, int, int], Hits] = {}
    for methods, random in worlds(scenario, repeats, seed):
        on_validation = difficulties(scenario, scenario.validation, random)
        chosen = [choose(method, method.items(on_validation, scenario.trials))[0] for method in methods]
        on_test = difficulties(scenario, scenario.items, random)
        # [G, R, S, T, n] of each method, and the truth of its setting [G, R, T].
        values = [
            method.answers(method.items(on_test, 1), one[..., None], FRESH)[:, :, 0]
            for method, one in zip(methods, chosen, strict=True)
        ]
        true = [method.of_chosen(one) for method, one in zip(methods, chosen, strict=True)]
        average = [each.mean(axis=(0, 1)) for each in true]
        for draw in range(scenario.draws):
            for tunings, number in designs:
                rows = [each[draw, 0, :number] if tunings == 1 else each[draw, :tunings, 0] for each in values]
                about = {"procedure": average}
                if tunings == 1:
                    about["settings"] = [each[draw, 0] for each in true]
                for name, hits in _compared(rows, about).items():
                    _add(found.setdefault((name, tunings, number), {}), hits)
    return [
        Claim(about, scenario.effect_sd, scenario.seed_sd, tunings, number, **_shares(hits))
        for (about, tunings, number), hits in found.items()
    ]


def mistakes(scenario: Scenario, repeats: int, *, seed: int = 0) -> list[Mistake]:
    """What three seeds report where choosing leaks into testing, and where only one's own method is tuned."""
    scenario = replace(scenario, tunings=1)
    found: dict[str, Hits] = {name: {} for name in MISTAKES}
    for methods, random in worlds(scenario, repeats, seed):
        on_validation = difficulties(scenario, scenario.validation, random)
        on_test = difficulties(scenario, scenario.items, random)
        reported = [_reported(method, on_validation, on_test) for method in methods]
        for draw in range(scenario.draws):
            for name in MISTAKES:
                ours, theirs, _ = MISTAKES[name]
                tuned = [each[ours if place == 0 else theirs] for place, each in enumerate(reported)]
                values, true = [each[0][draw] for each in tuned], [each[1][draw] for each in tuned]
                _add(found[name], _compared(values, {name: true})[name])
    return [
        Mistake(
            MISTAKES[name][2],
            scenario.effect_sd,
            _mean(hits["optimism"]),
            100 * _mean(hits["mean"]),
            _mean(hits["favour"]),
            100 * _mean(hits["difference"]),
            100 * _mean(hits["alarms"]),
        )
        for name, hits in found.items()
    ]


def _reported(method: Method, on_validation: Array, on_test: Array) -> dict[str, tuple[Array, Array]]:
    """Of each way to choose and report: values `[G, S, T, n]`, and the truth `[G, T]` of the setting.

    Of a default it is that of the tuned setting: what is claimed is that ours is better, and not that it is tuned.
    """
    trials = method.scenario.trials
    items, fresh = method.items(on_test, trials), FRESH[:3]

    def trained(chosen: Array, seeds: tuple[int, ...]) -> tuple[Array, Array]:
        one = chosen[..., None]
        return method.answers(taken(items, one), one, seeds)[:, 0, 0], method.of_chosen(chosen)[:, 0]

    honest, leaked = choose(method, method.items(on_validation, trials))[0], choose(method, items)[0]
    everything = np.broadcast_to(np.arange(trials), (*honest.shape, trials))
    whole = method.answers(items, everything, (TRIAL_SEED,))
    best = whole.mean(axis=(3, 4, 5)).argmax(axis=-1)
    three, (default, _) = trained(honest, fresh), trained(np.zeros_like(honest), fresh)
    return {
        "none": three,
        "one_seed": (three[0][:, :1], three[1]),
        "trial_seed": trained(honest, (TRIAL_SEED, *fresh[:2])),
        "trial_alone": trained(honest, (TRIAL_SEED,)),
        "test_items": trained(leaked, fresh),
        "best_trial": (taken(whole, best[..., None])[:, 0, 0], method.of_chosen(best)[:, 0]),
        "default": (default, three[1]),
        "default_one_seed": (default[:, :1], three[1]),
    }


def _compared(rows: list[Array], about: Mapping[str, list[Array]]) -> dict[str, Hits]:
    """The comparisons of one draw, against each of several truths: values `[S, T, n]` of each method, and what is true of it `[T]`."""
    hits: dict[str, Hits] = {name: defaultdict(list) for name in about}
    p_values: dict[str, list[float]] = {name: [] for name in about}
    for task in TASKS:
        values = [each[:, task].astype(np.float64) for each in rows]
        low, high = mean_interval(values[0])
        tests = [comparison(values[0], other, binary=bool(BINARY[task])) for other in values[1:]]
        for name, true in about.items():
            hits[name]["mean"].append(low <= true[0][task] <= high)
            hits[name]["optimism"].append(float(values[0].mean() - true[0][task]))
            for found, other in zip(tests, true[1:], strict=True):
                difference = float(true[0][task] - other[task])
                hits[name]["difference"].append(found.covers(difference))
                hits[name]["favour"].append(found.difference - difference)
                hits[name]["half_width"].append(found.half_width)
                p_values[name].append(found.p_value(difference))
    for name, family in p_values.items():
        hits[name]["alarms"].append(any_rejected(family))
    return hits


def _add(hits: Hits, more: Hits) -> None:
    for name, values in more.items():
        hits.setdefault(name, []).extend(values)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _shares(hits: Hits) -> dict[str, float]:
    shares = {name: 100 * _mean(hits[name]) for name in ("mean", "difference", "alarms")}
    return {**shares, "half_width": float(np.median(hits["half_width"]))}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", nargs="+", choices=("claims", "mistakes"), default=["claims", "mistakes"])
    parser.add_argument("--items", type=int, default=200, help="test items of each task")
    parser.add_argument("--seed-sd", type=float, nargs="+", default=[1.0, 2.0, 4.0], help="of claims; points")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    start, found = time.perf_counter(), {}
    if "claims" in options.only:
        print("How often claims hold, and how often tests cry out over nothing\n")
        cells = [
            Scenario(effect_sd=effect, seed_sd=sd, items=options.items)
            for effect in (0.0, 6.0)
            for sd in options.seed_sd
        ]
        found["claims"] = print_table([row for cell in cells for row in claims(cell, options.repeats)])
    if "mistakes" in options.only:
        print("\nWhat goes wrong otherwise; seed sd 2\n")
        rows = [
            row
            for effect in (0.0, 6.0)
            for row in mistakes(Scenario(effect_sd=effect, items=options.items), options.repeats)
        ]
        found["mistakes"] = print_table(rows)
    error = 100 * math.sqrt(0.05 * 0.95 / options.repeats)
    seconds = time.perf_counter() - start
    print(f"\n{options.repeats} repeats: standard error of a share of families near 5 % {error:.1f}. {seconds:.0f} s")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

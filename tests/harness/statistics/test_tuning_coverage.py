"""Tuning and testing with a known truth: a short part of tests/benchmarks/tuning_coverage.py."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from harness.results.item_scores import ItemScores
from harness.statistics.paired_tests import compare
from harness.tuning import rule
from harness.tuning.rungs import rungs
from helpers.benchmarks import load_benchmark
from helpers.tuning_procedure import choose_by, comparison
from helpers.tuning_world import TEACHER, Method, Scenario, points, points_per_logit, truth

SMALL = Scenario(effect_sd=6.0, seed_sd=2.0, trials=8, methods=3, validation=50, items=100)


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return load_benchmark("tuning_coverage")


def test_intervals_hold_the_difference_of_the_chosen_settings_and_tests_rarely_cry_out(simulation: ModuleType) -> None:
    found = {(row.about, row.tunings, row.seeds): row for row in simulation.claims(SMALL, 400, seeds=(3,))}
    settings = found["settings", 1, 3]
    # Of 400 draws of families: four standard errors at 95 % are 4.4 points.
    assert 92 <= settings.difference <= 98.5
    assert 92 <= settings.mean <= 98.5
    assert settings.alarms <= 9.4
    # What tuning chooses on average is another matter with one tuning seed, and none with several.
    assert found["procedure", 1, 3].difference < settings.difference - 3
    assert found["procedure", 5, 1].difference >= 92


def test_fresh_seeds_and_other_items_promise_nothing_and_every_leak_does(simulation: ModuleType) -> None:
    scenario = Scenario(effect_sd=0.0, seed_sd=4.0, halving=False, methods=2, items=100)
    found = {row.mistake: row for row in simulation.mistakes(scenario, 400)}
    optimism = {name: found[said].optimism for name, (_, _, said) in simulation.MISTAKES.items()}
    assert abs(optimism["none"]) < 0.6
    assert optimism["trial_seed"] > 0.6
    assert optimism["trial_alone"] > 2 * 0.6
    assert optimism["best_trial"] > optimism["trial_alone"]


def test_untuned_rivals_are_beaten_by_what_is_no_better(simulation: ModuleType) -> None:
    found = {row.mistake: row for row in simulation.mistakes(SMALL, 200)}
    rivals = found[simulation.MISTAKES["default_rivals"][2]]
    assert rivals.favour > 2
    assert rivals.alarms > 25


@pytest.mark.parametrize(("trials", "halving"), [(1, True), (5, True), (12, True), (12, False)])
def test_a_simulated_choice_is_that_of_the_rule(trials: int, halving: bool) -> None:
    random = np.random.default_rng(trials)
    teacher = dict(zip("abc", truth(TEACHER, 0.0), strict=True))
    # Few values, so that there are ties.
    scores = {share: random.choice([10.0, 20.0, 30.0], (50, trials, 3)) for share in (0.25, 0.5, 1.0)}
    chosen, last = choose_by(
        lambda share, kept: np.take_along_axis(scores[share], kept[..., None], axis=1), (50,), trials, halving=halving
    )
    steps = rungs(trials, halving=halving)
    for run in range(50):
        kept = list(range(trials))
        for number, rung in enumerate(steps):
            given = [dict(zip("abc", scores[rung.share][run, trial], strict=True)) for trial in kept]
            order = rule.ranked([rule.score(each, teacher) for each in given], kept)
            kept = [kept[place] for place in order]
            kept = kept[: steps[number + 1].trials] if number + 1 < len(steps) else kept
        assert chosen[run] == kept[0]
        assert last[run] == pytest.approx(scores[1.0][run, kept[0]])


@pytest.mark.parametrize("binary", [True, False])
def test_a_simulated_comparison_is_that_of_compare(binary: bool) -> None:
    random = np.random.default_rng(0)
    a, b = 100 * random.random((2, 3, 60))
    if binary:
        a, b = 100.0 * (a > 50), 100.0 * (b > 60)
    ids = tuple(map(str, range(60)))
    expected = compare(*(ItemScores(ids, (1, 2, 3), values) for values in (a, b)))
    found = comparison(a, b, binary=binary)
    assert (found.difference, found.p_value()) == pytest.approx((expected.difference, expected.p_value))
    low, high = expected.ci95
    assert found.half_width == pytest.approx((high - low) / 2)
    # An interval has in it what the test does not reject.
    assert found.p_value(low) == pytest.approx(0.05)
    assert found.p_value(high) == pytest.approx(0.05)
    assert found.covers(low + 0.01)
    assert not found.covers(low - 0.01)


def test_settings_scatter_as_the_scenario_says() -> None:
    scenario = Scenario(effect_sd=6.0, draws=1, tunings=1)
    random = np.random.default_rng(2)
    settings = points(scenario.options, 256, 0)
    effects = np.array([Method(scenario, random).effects(settings)[0] for _ in range(200)])
    assert (effects * points_per_logit()).std(axis=(0, 1)) == pytest.approx([6.0] * 3, rel=0.15)

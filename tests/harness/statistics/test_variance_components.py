"""Coverage and false alarms where the truth is known: a short part of tests/benchmarks/statistics_coverage.py."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from harness.statistics.intervals import wilson_interval
from harness.statistics.variance_components import mean_interval, spread
from helpers.benchmarks import load_benchmark


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return load_benchmark("statistics_coverage")


@pytest.mark.parametrize(
    ("kind", "seeds", "seed_sd"), [("binary", 3, 4.0), ("continuous", 3, 4.0), ("continuous", 5, 1.0)]
)
def test_intervals_hold_the_truth_and_equal_methods_are_rarely_told_apart(
    simulation: ModuleType, kind: str, seeds: int, seed_sd: float
) -> None:
    found = simulation.measure(kind, seeds, 100, seed_sd, repeats=400, resamples=200)
    # Four standard errors of 400 draws at 95 % are 4.4 points.
    assert found.mean >= 90.6
    assert found.difference >= 90.6
    assert found.alarms <= 9.4
    assert found.power >= 60


def test_a_mean_of_binary_scores_keeps_a_width_at_its_ends() -> None:
    low, high = mean_interval(np.zeros((3, 100)))
    assert low == 0.0
    assert high == pytest.approx(100 * wilson_interval(0, 100)[1], rel=0.05)
    assert mean_interval(np.full((3, 100), 100.0))[1] == 100.0


def test_the_interval_of_seeds_that_repeat_each_other_is_that_of_one() -> None:
    rows = np.repeat(100.0 * (np.random.default_rng(0).random((1, 200)) < 0.4), 3, axis=0)
    low, high = mean_interval(rows)
    expected = wilson_interval(float(rows[0].sum() / 100), 200)
    assert (low, high) == pytest.approx((100 * expected[0], 100 * expected[1]), abs=0.2)


def test_more_seeds_make_a_smaller_error_and_a_fixed_model_has_none_of_seeds() -> None:
    random = np.random.default_rng(1)
    rows = 50 + random.normal(0, 5, (3, 1)) + random.normal(0, 10, (3, 400))
    six = np.concatenate([rows, rows])  # as far apart, twice as many
    assert spread(six.mean(axis=0), [six]).error < 0.7 * spread(rows.mean(axis=0), [rows]).error
    assert spread(rows[0], []).error == pytest.approx(rows[0].std(ddof=1) / 20)

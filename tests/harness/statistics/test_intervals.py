"""Intervals and estimators against published values and slow references written another way."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scipy import stats

from harness.statistics.intervals import (
    bootstrap_interval,
    bootstrap_ratio_interval,
    mean_and_error,
    pass_at_k,
    wilson_interval,
)


def test_the_mean_and_its_error_are_those_of_a_sample() -> None:
    values = [0.0, 100.0, 50.0, 25.0]
    mean, error = mean_and_error(values)
    assert mean == pytest.approx(43.75)
    assert error == pytest.approx(stats.sem(values))


def test_one_value_has_no_error_and_none_has_no_mean() -> None:
    assert mean_and_error([3.0]) == (3.0, None)
    with pytest.raises(ValueError, match="n > 0"):
        mean_and_error([])


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 2), (462, 1319), (33, 164)])
def test_wilson_s_interval_is_that_of_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_s_interval_needs_a_proportion() -> None:
    for successes, n in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="successes"):
            wilson_interval(successes, n)


def test_the_bootstrap_interval_agrees_with_scipy_and_with_itself() -> None:
    values = np.random.default_rng(1).beta(2, 5, 500) * 100
    low, high = bootstrap_interval(values, seed=7)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.15)
    assert (low, high) == bootstrap_interval(values, seed=7)
    assert (low, high) != bootstrap_interval(values, seed=8)


def test_the_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(random.exponential(10.0, 60), seed=trial, resamples=1000)
        hits += low <= 10.0 <= high
    assert 0.87 <= hits / 200 <= 0.99


def test_the_bootstrap_interval_of_one_value_is_refused() -> None:
    with pytest.raises(ValueError, match="one value"):
        bootstrap_interval([1.0])


@pytest.mark.parametrize(("n", "correct", "k"), itertools.chain(*[[(6, c, k) for k in range(1, 7)] for c in range(7)]))
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_with_a_right_one(n: Any, correct: Any, k: Any) -> None:
    samples = [True] * correct + [False] * (n - correct)
    choices = list(itertools.combinations(samples, k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_is_exact_for_many_samples() -> None:
    assert pass_at_k(200, 3, 100) == pytest.approx(1 - math.comb(197, 100) / math.comb(200, 100))


def test_pass_at_k_is_the_closed_form() -> None:
    for n, k in itertools.product((1, 2, 7, 10, 20, 100, 200), (1, 2, 10, 100)):
        for correct in {0, 1, 2, n // 2, n - 1, n} if k <= n else ():
            if correct <= n:
                closed = 1 - Fraction(math.comb(n - correct, k), math.comb(n, k))
                assert pass_at_k(n, correct, k) == pytest.approx(float(closed), abs=1e-12), (n, correct, k)


def test_pass_at_k_is_unknown_with_fewer_than_k_samples() -> None:
    assert pass_at_k(9, 9, 10) is None
    with pytest.raises(ValueError, match="correct of"):
        pass_at_k(1, 2, 1)


def test_the_interval_of_a_ratio_draws_items_with_all_their_tokens() -> None:
    random = np.random.default_rng(3)
    counts = random.integers(1, 40, 60).astype(float)
    sums = counts * (0.5 + 0.1 * random.standard_normal(60))
    low, high = bootstrap_ratio_interval(sums, counts)
    draws = np.random.default_rng(0)
    slow = []
    for _ in range(4000):
        chosen = [int(draws.integers(60)) for _ in range(60)]
        slow.append(sum(sums[k] for k in chosen) / sum(counts[k] for k in chosen))
    assert (low, high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.002)
    assert low < sums.sum() / counts.sum() < high


def test_of_one_token_an_item_a_ratio_is_a_mean_and_items_without_any_are_no_harm() -> None:
    values = [0.1, 0.4, 0.2, 0.9, 0.3]
    assert bootstrap_ratio_interval(values, [1.0] * 5) == pytest.approx(bootstrap_interval(values))
    low, high = bootstrap_ratio_interval([1.0, 0.0], [2.0, 0.0])
    assert (low, high) == (0.5, 0.5)
    with pytest.raises(ValueError, match="no spread"):
        bootstrap_ratio_interval([1.0], [1.0])

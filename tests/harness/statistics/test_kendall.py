"""Kendall's rank correlation against scipy's, and what its interval and the comparison of seeds say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from harness.statistics.rank_agreement import agreement, kendall


@pytest.mark.parametrize("ties", [False, True])
def test_tau_is_that_of_scipy(ties: bool) -> None:
    rng = np.random.default_rng(3)
    for count in (3, 5, 9):
        for _ in range(20):
            a, b = (rng.integers(0, 4, count) if ties else rng.random(count) for _ in range(2))
            expected = kendalltau(a, b).statistic
            assert float(kendall(a, b)) == pytest.approx(expected, nan_ok=True)


def test_every_ranking_along_the_first_axes_is_compared_with_its_own() -> None:
    a, b = np.random.default_rng(0).random((2, 4, 6))
    found = kendall(a, b)
    assert found.shape == (4,)
    assert [float(kendall(x, y)) for x, y in zip(a, b, strict=True)] == pytest.approx(found.tolist())


def scores(
    rng: np.random.Generator, means: list[float], seeds: int, items: int, noise: float
) -> list[list[np.ndarray]]:
    """One task: methods with these means, whose seeds and items vary."""
    return [[m + noise * (rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, items))) for m in means]]


def test_clear_and_equal_rankings_agree_fully_and_reversed_ones_not_at_all() -> None:
    rng = np.random.default_rng(1)
    means = [10.0, 20.0, 30.0, 40.0]
    one, two = (scores(rng, means, 2, 50, 0.1) for _ in range(2))
    found = agreement(one, two)
    assert (found.tau, found.ci95, found.across, found.within) == (1.0, (1.0, 1.0), 1.0, 1.0)
    reverse = agreement(one, scores(rng, means[::-1], 2, 50, 0.1))
    assert (reverse.tau, reverse.ci95, reverse.across, reverse.within) == (-1.0, (-1.0, -1.0), -1.0, 1.0)


def test_close_methods_have_a_wide_interval_although_their_means_may_agree() -> None:
    rng = np.random.default_rng(2)
    means = [50.0, 51.0, 52.0, 53.0, 54.0]
    found = agreement(scores(rng, means, 2, 50, 4.0), scores(rng, means, 2, 50, 4.0))
    assert found.ci95 is not None
    assert found.ci95[1] - found.ci95[0] > 0.5


def test_seeds_apart_agree_as_seeds_alike_do_unless_the_rankings_differ() -> None:
    rng = np.random.default_rng(4)
    means = np.linspace(40, 60, 6)
    same, other = [], []
    for _ in range(60):
        one = scores(rng, [*means], 3, 40, 4.0)
        same.append(agreement(one, scores(rng, [*means], 3, 40, 4.0), draws=2))
        other.append(agreement(one, scores(rng, [*rng.permutation(means)], 3, 40, 4.0), draws=2))
    across, within = (np.mean([getattr(found, name) for found in same]) for name in ("across", "within"))
    assert abs(across - within) < 0.05
    assert np.mean([found.across for found in other]) < np.mean([found.within for found in other]) - 0.3


def test_one_seed_says_nothing_of_noise_between_seeds_and_all_tied_nothing_at_all() -> None:
    rng = np.random.default_rng(5)
    one = scores(rng, [1.0, 2.0, 3.0], 1, 20, 0.5)
    found = agreement(one, one)
    assert (found.tau, found.across, found.within) == (1.0, None, None)
    tied = [[np.full((1, 20), 7.0)] * 3]
    assert agreement(tied, one).tau is None
    assert agreement(tied, one).ci95 is None


def test_tasks_are_averaged_and_not_pooled() -> None:
    few, many = np.array([[0.0, 100.0]]), np.full((1, 50), 10.0)
    # Means 50 and 10 average to 30, under 31 of the second method; pooled, the first would have 11.5 and the third less.
    a = [[few, few + 2, few - 60], [many, many, many]]
    assert agreement(a, a).tau == 1.0

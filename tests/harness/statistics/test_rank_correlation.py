"""Spearman's rank correlation of a few trials, with an interval that holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from harness.statistics.rank_correlation import rank_correlation


def test_the_value_is_spearmans_also_with_equal_values() -> None:
    left, right = [1.0, 2.0, 2.0, 4.0, 5.0, 6.0], [3.0, 1.0, 4.0, 4.0, 6.0, 5.0]
    found = rank_correlation(left, right)
    assert found.value == pytest.approx(spearmanr(left, right).statistic, abs=1e-4)
    assert found.n == 6
    assert found.ci95 is not None
    assert found.ci95[0] < found.value < found.ci95[1]


def test_few_pairs_and_perfect_order_have_no_interval_and_one_value_no_correlation() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]).ci95 is None
    perfect = rank_correlation([1, 2, 3, 4, 5, 6], [9, 8, 7, 6, 5, 4])
    assert (perfect.value, perfect.ci95) == (-1.0, None)
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]).value is None
    with pytest.raises(ValueError, match="2 and 1 values are no pairs"):
        rank_correlation([1, 2], [1])


@pytest.mark.parametrize("true", [0.0, 0.5, 0.8])
def test_twelve_trials_hold_the_truth_in_nineteen_of_twenty_cases(true: float) -> None:
    random = np.random.default_rng(0)
    spearman = 6 / np.pi * np.arcsin(true / 2)  # of two normal values whose correlation is `true`
    repeats, covered = 600, 0
    for _ in range(repeats):
        left, right = random.multivariate_normal([0, 0], [[1, true], [true, 1]], 12).T
        ends = rank_correlation(left.tolist(), right.tolist()).ci95
        covered += ends is not None and ends[0] <= spearman <= ends[1]
    assert 0.92 <= covered / repeats <= 0.985

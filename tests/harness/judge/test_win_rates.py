"""Win rates, plain and at equal length, on judges whose preference is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest

from harness.judge.length_control import PRIOR_SD, length_controlled
from harness.judge.win_rate import win_rate
from harness.statistics.intervals import wilson_interval


def by_prompt(values: list[float]) -> dict[str, list[float]]:
    return {str(number): [value] for number, value in enumerate(values)}


def test_ties_count_as_half_and_the_sign_test_leaves_them_out() -> None:
    found = win_rate(by_prompt([1.0] * 6 + [0.5] * 3 + [0.0]))
    assert found["value"] == pytest.approx(75.0)
    assert found["p"] == pytest.approx(binomtest(6, 7).pvalue)
    assert found["ci95"][0] < 75 < found["ci95"][1]
    assert found["prompts"] == 10


def test_several_pairs_of_a_prompt_are_one_observation() -> None:
    once = win_rate(by_prompt([1.0, 0.0, 1.0, 1.0, 0.5]))
    four = win_rate({str(n): [value] * 4 for n, value in enumerate([1.0, 0.0, 1.0, 1.0, 0.5])})
    assert once == four


def test_an_interval_of_prompts_that_are_all_alike_still_has_a_width() -> None:
    found = win_rate(by_prompt([1.0] * 10))
    assert found["ci95"] == pytest.approx([100 * end for end in wilson_interval(10, 10)])
    assert found["ci95"][0] < 75
    ties = win_rate(by_prompt([0.5] * 10))
    assert ties["ci95"][0] < 30 < 70 < ties["ci95"][1]
    assert ties["p"] == 1.0
    assert win_rate({})["value"] is None


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_a_preference_for_length_alone_is_no_preference_at_equal_length(shift: float) -> None:
    """The longer answer always wins: a separation, which an unpenalised fit would follow to infinity."""
    random = np.random.default_rng(0)
    plain, found = [], []
    for _ in range(20):
        differences = np.round(random.normal(200 * shift, 200, 400))
        longer = (differences > 0) + 0.5 * (differences == 0)
        plain.append(100 * longer.mean())
        found.append(length_controlled(longer, differences, range(400)))
    assert np.mean(plain) > 47 + 30 * shift
    assert np.mean([each.win_rate for each in found]) == pytest.approx(50, abs=6)
    assert sum(each.ci95[0] <= 50 <= each.ci95[1] for each in found) >= 18
    assert max(each.phi for each in found) < 40


def test_a_preference_for_length_with_noise_is_no_preference_at_equal_length() -> None:
    random = np.random.default_rng(1)
    differences = random.normal(150, 200, 2000)
    longer = (random.random(2000) < expit(1.5 * np.tanh(differences / differences.std()))) * 1.0
    found = length_controlled(longer, differences, range(2000))
    assert 100 * longer.mean() > 62
    assert found.win_rate == pytest.approx(50, abs=4)


def test_a_preference_for_quality_alone_stays() -> None:
    random = np.random.default_rng(2)
    differences = random.normal(150, 200, 2000)
    better = (random.random(2000) < 0.7) * 1.0
    found = length_controlled(better, differences, range(2000))
    assert found.win_rate == pytest.approx(100 * better.mean(), abs=4)


@pytest.mark.parametrize("winner", [0.0, 1.0])
def test_a_side_that_wins_every_pair_keeps_winning_with_a_finite_fit(winner: float) -> None:
    differences = np.random.default_rng(3).normal(50, 200, 100)
    found = length_controlled(np.full(100, winner), differences, range(100))
    assert found.win_rate == pytest.approx(100 * winner, abs=1)
    low, high = found.ci95
    assert high - low > 1  # a hundred of a hundred is no certainty
    assert abs(found.theta) < 20
    assert abs(found.phi) < 20


def test_answers_of_equal_length_leave_the_win_rate_as_it_is() -> None:
    found = length_controlled([1, 1, 0, 0.5] * 25, [0] * 100, range(100))
    assert found.win_rate == pytest.approx(62.5, abs=0.1)
    assert found.phi == pytest.approx(0, abs=1e-6)
    assert found.overlap


def test_a_side_that_is_always_longer_is_marked_and_has_a_wide_interval() -> None:
    found = length_controlled([1] * 30, [10] * 15 + [12] * 15, range(30))
    assert not found.overlap
    assert found.ci95[1] - found.ci95[0] > 90


def test_the_fit_is_the_maximum_of_the_penalised_likelihood() -> None:
    """Against another optimizer, on ties too."""
    random = np.random.default_rng(4)
    differences = random.normal(20, 100, 150)
    y = random.choice([0.0, 0.5, 1.0], 150, p=[0.2, 0.3, 0.5])
    z = np.tanh(differences / differences.std())

    def loss(parameters: np.ndarray) -> float:
        expected = expit(parameters[0] + parameters[1] * z)
        likelihood = (y * np.log(expected) + (1 - y) * np.log1p(-expected)).sum()
        return float(-likelihood + (parameters**2).sum() / (2 * PRIOR_SD**2))

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    found = length_controlled(y, differences, range(150))
    assert (found.theta, found.phi) == pytest.approx(tuple(best), abs=1e-4)
    assert found.win_rate == pytest.approx(100 * expit(best[0]), abs=1e-2)


def test_pairs_of_one_prompt_widen_the_interval() -> None:
    random = np.random.default_rng(5)
    prompts = random.choice([0.0, 1.0], 40)
    lengths = random.normal(0, 100, 40)
    alone = length_controlled(prompts, lengths, range(40))
    copies = length_controlled(np.repeat(prompts, 5), np.repeat(lengths, 5), list(np.repeat(np.arange(40), 5)))
    apart = length_controlled(np.repeat(prompts, 5), np.repeat(lengths, 5), range(200))
    width = [each.ci95[1] - each.ci95[0] for each in (alone, copies, apart)]
    assert width[1] == pytest.approx(width[0], rel=0.05)
    assert width[2] < 0.6 * width[1]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(6)
    covered = 0
    for _ in range(200):
        differences = random.normal(100, 100, 120)
        y = (random.random(120) < expit(0.7 + np.tanh(differences / 100))) * 1.0
        low, high = length_controlled(y, differences, range(120)).ci95
        covered += low <= 100 * expit(0.7) <= high
    assert 183 <= covered <= 199

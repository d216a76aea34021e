"""Trials are known beforehand: their settings, how long each trains, and by which rule one is chosen."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy.stats import qmc

from dskd.methods.space import Choice, Factor, Log, Space, Uniform
from harness.planning import trial_points as points
from harness.planning.trial_points import settings_of_trials, sobol
from harness.tuning import rule
from harness.tuning.rungs import Rung, most_trials, rungs, whole_trainings

SPACE: Space = {
    "kd_rate": Uniform(0.3, 1.0),
    "temperature": Log(0.5, 4.0),
    "divergence": Choice("forward_kl", "reverse_kl"),
    "training.learning_rate": Factor(0.25, 4.0),
}
DEFAULTS = {"kd_rate": 0.5, "temperature": 2.0, "divergence": "forward_kl", "training.learning_rate": 2e-3}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_first_trial_is_the_default_and_the_others_are_points_of_sobols_sequence() -> None:
    trials = settings_of_trials(SPACE, DEFAULTS, 9, seed=3)
    assert trials[0] == {}
    drawn = qmc.Sobol(4, scramble=True, rng=3).random_base2(6)
    for settings, point in zip(trials[1:], drawn, strict=False):
        at = dict(zip(sorted(SPACE), point, strict=True))
        assert settings["kd_rate"] == pytest.approx(0.3 + 0.7 * at["kd_rate"], rel=5e-3)
        assert settings["temperature"] == pytest.approx(0.5 * 8 ** at["temperature"], rel=5e-3)
        assert settings["divergence"] == ("forward_kl" if at["divergence"] < 0.5 else "reverse_kl")
        rate = 2e-3 * 0.25 * 16 ** at["training.learning_rate"]
        assert settings["training.learning_rate"] == pytest.approx(rate, rel=5e-3)


def test_a_larger_budget_begins_with_the_trials_of_a_smaller_one() -> None:
    few, many = (settings_of_trials(SPACE, DEFAULTS, number, seed=0) for number in (5, 100))
    assert many[:5] == few
    assert len({json.dumps(each, sort_keys=True) for each in many}) == len(many) == 100
    assert settings_of_trials(SPACE, DEFAULTS, 5, seed=1)[1:] != few[1:]


def test_no_setting_is_tried_twice_and_a_small_space_has_few_trials() -> None:
    space: Space = {"divergence": Choice("forward_kl", "reverse_kl"), "top_k": Choice(4, 8, 16)}
    trials = settings_of_trials(space, {"divergence": "forward_kl", "top_k": 8}, 20, seed=0)
    tried = {(each.get("divergence", "forward_kl"), each.get("top_k", 8)) for each in trials}
    assert len(trials) == len(tried) == 6
    assert settings_of_trials({}, {}, 20, seed=0) == [{}]


def test_points_are_remembered_and_damage_is_seen(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sobol(2, 64, 5)
    (path,) = (own_cache / "points").iterdir()
    drawn: list[int] = []
    real = qmc.Sobol

    def counted(*args: object, **kwargs: object) -> object:
        drawn.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(qmc, "Sobol", counted)
    assert sobol(2, 64, 5) == first
    assert not drawn
    for damage in ("", "[[0.5]]", '{"a": 1}', json.dumps([[2.0, 0.1]] * 64), json.dumps([["x", 0.1]] * 64)):
        path.write_text(damage)
        assert sobol(2, 64, 5) == first
    assert len(drawn) == 5
    monkeypatch.setattr(points, "cache_folder", lambda: None)
    assert sobol(2, 64, 5) == first


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        (12, [Rung(0.25, 12), Rung(0.5, 6), Rung(1.0, 3)]),
        (5, [Rung(0.25, 5), Rung(0.5, 3), Rung(1.0, 2)]),
        (2, [Rung(0.25, 2), Rung(0.5, 1), Rung(1.0, 1)]),
        (1, [Rung(1.0, 1)]),
    ],
)
def test_halving_drops_the_worse_half_at_a_quarter_and_at_half(trials: int, expected: list[Rung]) -> None:
    assert rungs(trials, halving=True) == expected
    assert rungs(trials, halving=False) == [Rung(1.0, trials)]


def test_halving_saves_half_of_the_cost() -> None:
    assert whole_trainings(rungs(12, halving=False)) == 12
    assert whole_trainings(rungs(12, halving=True)) == 12 / 4 + 6 / 4 + 3 / 2


@pytest.mark.parametrize("halving", [False, True])
@pytest.mark.parametrize("budget", [0.2, 1.0, 3.0, 7.4, 30.0])
def test_a_budget_is_spent_as_far_as_whole_trials_go(budget: float, halving: bool) -> None:
    trials = most_trials(budget, halving=halving)
    assert trials == 1 or whole_trainings(rungs(trials, halving=halving)) <= budget
    assert whole_trainings(rungs(trials + 1, halving=halving)) > budget


def test_scores_are_in_per_cent_of_the_teachers() -> None:
    assert rule.score({"a": 40.0, "b": 30.0}, {"a": 80.0, "b": 60.0}) == 50.0
    assert rule.score({"a": 40.0, "b": 30.0}, {"a": 80.0, "b": 0.0}) == 40.0  # a teacher without a score scales nothing
    assert rule.score({"a": 40.0, "b": 30.0}, {}) == 35.0
    assert rule.score({"a": 40.0, "b": None}, {"a": 80.0, "b": 60.0}) is None


def test_equal_trials_are_ranked_by_their_number_and_those_without_a_score_last() -> None:
    assert rule.ranked([50.0, None, 70.0, 70.0, 0.0], [0, 1, 3, 2, 4]) == [3, 2, 0, 4, 1]
    assert rule.ranked([None, None], [1, 0]) == [1, 0]


def test_ranges_that_hold_nothing_are_refused() -> None:
    for make in (lambda: Uniform(1, 1), lambda: Log(0, 2), lambda: Factor(-1, 2), lambda: Uniform(0, math.inf), Choice):
        with pytest.raises(ValueError, match=r"range|choice"):
            make()

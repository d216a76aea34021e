"""The mean difference over tasks: what it equals, what it must not miss, and how often it is wrong."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from dskd.errors import InputError
from harness.results.item_scores import ItemScores
from harness.statistics.joined_tasks import TaskScores, as_good_as, better_than, join, seeds_needed
from harness.statistics.paired_tests import compare, holm, holm_levels
from helpers.benchmarks import load_benchmark


def scores(values: np.ndarray, seeds: tuple[int, ...] | None = None) -> ItemScores:
    return ItemScores(tuple(map(str, range(values.shape[1]))), seeds or tuple(range(len(values))), values)


def task(
    random: np.random.Generator, seeds: int, items: int, *, a: float = 50, b: float = 50, title: str = "t"
) -> TaskScores:
    difficulty = random.normal(0, 10, items)
    left, right = (
        mean + difficulty + random.normal(0, 2, (seeds, 1)) + random.normal(0, 8, (seeds, items)) for mean in (a, b)
    )
    return TaskScores(title, scores(left), scores(right))


@pytest.mark.parametrize("binary", [False, True])
def test_one_task_is_the_comparison_of_two_methods_with_more_caution(binary: bool) -> None:
    one = task(np.random.default_rng(0), 4, 60, a=58)
    if binary:
        one = TaskScores("t", *(scores(100.0 * (side.values > 52)) for side in (one.a, one.b)))
    joined, expected = join([one]), compare(one.a, one.b)
    assert joined.difference == pytest.approx(expected.difference)
    (low, high), (usual_low, usual_high) = joined.interval(), expected.ci95
    assert low + high == pytest.approx(usual_low + usual_high)
    assert 1 <= (high - low) / (usual_high - usual_low) < 1.2
    assert better_than(joined)[0] == pytest.approx(expected.p_value_of_many)
    assert expected.p_value_of_many >= expected.p_value
    assert joined.tasks[0].ci95 == pytest.approx(joined.interval())


def test_tasks_weigh_alike_however_many_items_they_have() -> None:
    random = np.random.default_rng(1)
    joined = join([task(random, 3, 400, a=60, title="large"), task(random, 3, 40, a=40, title="small")])
    assert joined.difference == pytest.approx(sum(each.difference for each in joined.tasks) / 2)
    assert abs(joined.difference) < 4
    assert [each.items for each in joined.tasks] == [400, 40]


def test_a_seed_that_is_good_on_every_task_is_one_observation() -> None:
    """Three tasks that repeat each other's seeds say no more of the seeds than one of them."""
    random = np.random.default_rng(2)
    one = task(random, 4, 300, a=52)
    copies = [TaskScores(f"t{k}", one.a, one.b) for k in range(3)]
    alone, three = join([one]).components, join(copies).components
    assert [part.means for part in three.seeds] == pytest.approx([part.means for part in alone.seeds])
    # Other items, so these do average out.
    assert three.items == pytest.approx(alone.items / 3)


def test_where_tasks_differ_their_means_are_no_spread_of_items() -> None:
    random = np.random.default_rng(3)
    near = join([task(random, 3, 100, a=50, title="x"), task(random, 3, 100, a=50, title="y")])
    random = np.random.default_rng(3)
    far = join([task(random, 3, 100, a=80, title="x"), task(random, 3, 100, a=20, title="y")])
    assert far.spread.error == pytest.approx(near.spread.error)


def test_seeds_without_all_tasks_are_left_out() -> None:
    random = np.random.default_rng(4)
    x, y = task(random, 4, 50, title="x"), task(random, 4, 50, title="y")
    fewer = TaskScores("y", scores(y.a.values[:3], (1, 2, 3)), y.b)
    assert join([x, fewer]).seeds == (3, 4)
    with pytest.raises(InputError, match="no seed has all tasks"):
        join([x, TaskScores("y", scores(y.a.values[:1], (9,)), y.b)])


def test_a_task_without_shared_items_is_one_line() -> None:
    random = np.random.default_rng(5)
    one = task(random, 3, 20)
    other = ItemScores(tuple(f"x{k}" for k in range(20)), one.b.seeds, one.b.values)
    with pytest.raises(InputError, match=r"t: 0 items in common .* fix: compare"):
        join([TaskScores("t", one.a, other)])


def test_scores_that_agree_everywhere_are_equal_and_not_better() -> None:
    same = task(np.random.default_rng(6), 3, 30)
    equal = join([TaskScores("t", same.a, same.a)])
    assert better_than(equal)[0] == 1.0
    constant = join([TaskScores("t", scores(np.full((3, 9), 4.0)), scores(np.full((3, 9), 4.0)))])
    assert as_good_as(constant, 1.0) == (0.0, "holds")
    apart = join([TaskScores("t", scores(np.full((3, 9), 9.0)), scores(np.full((3, 9), 4.0)))])
    assert as_good_as(apart, 1.0) == (0.0, "fails")
    assert better_than(apart, 5.0)[0] == 1.0


def test_intervals_at_holms_levels_say_what_the_adjusted_p_values_say() -> None:
    random = np.random.default_rng(7)
    joins = [join([task(random, 4, 80, a=50 + shift)]) for shift in (0, 1, 3, 4, 6, 9)]
    p_values = [better_than(joined)[0] for joined in joins]
    said = [p < 0.05 for p in holm(p_values)]
    assert any(said)
    assert not all(said)
    for joined, level, rejected in zip(joins, holm_levels(p_values, 0.05), said, strict=True):
        low, high = joined.interval(level)
        assert (low > 0 or high < 0) == rejected
    assert holm_levels([], 0.05) == []
    assert holm_levels([0.001, 0.002], 0.05) == [0.025, 0.05]


def test_with_the_seeds_that_are_said_to_be_needed_most_differences_are_found() -> None:
    """Of a true difference of 3 points: how many seeds the first ones ask for, and what so many find."""
    random = np.random.default_rng(8)
    asked = [seeds_needed(join([task(random, 4, 300, a=53)]), 3.0, 0.05) for _ in range(60)]
    number = int(np.median([each for each in asked if each is not None]))
    assert 5 <= number <= 14
    found = sum(better_than(join([task(random, number, 300, a=53)]))[0] < 0.05 for _ in range(200))
    assert 0.65 <= found / 200 <= 0.95


def test_no_number_of_seeds_finds_what_the_items_hide() -> None:
    random = np.random.default_rng(9)
    difficulty = random.normal(0, 40, 20)
    one = TaskScores(
        "t", scores(50 + difficulty + random.normal(0, 1, (3, 20))), scores(50 + random.normal(0, 1, (3, 20)))
    )
    assert seeds_needed(join([one]), 1.0, 0.05) is None


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    return load_benchmark("claims_false_alarms")


@pytest.mark.parametrize(("seeds", "seed_sd"), [(4, 1.0), (5, 4.0)])
def test_files_of_claims_about_equal_methods_rarely_answer(simulation: ModuleType, seeds: int, seed_sd: float) -> None:
    found = simulation.measure(seeds, 60, seed_sd, 2.0, methods=5, repeats=120)
    # Three standard errors of 120 files at 5 % are 6 points.
    assert found.any <= 10
    assert found.wrong <= 11
    assert found.as_good <= 11
    assert found.covered >= 91

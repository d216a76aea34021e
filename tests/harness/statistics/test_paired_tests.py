"""Paired comparisons against values by hand, scipy, statsmodels, and a known truth."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, multitest

from dskd.errors import InputError
from harness.results.item_scores import ItemScores
from harness.statistics.paired_tests import PairedComparison, compare, holm, holm_of, mcnemar, sign_flip
from harness.statistics.variance_components import spread


def scores(
    values: object,
    *,
    seeds: tuple[int, ...] | None = None,
    prompts: tuple[str, ...] = (),
    start: int = 0,
    fixed: bool = False,
) -> Any:
    array = np.atleast_2d(np.array(values, dtype=float))
    ids = tuple(f"item/{start + number}" for number in range(array.shape[1]))
    return ItemScores(ids, seeds or tuple(range(1, len(array) + 1)), array, prompts, fixed)


def binary(random: np.random.Generator, share: float, shape: tuple[int, int]) -> np.ndarray:
    return 100.0 * (random.random(shape) < share)


def test_one_seed_of_binary_scores_is_tested_with_mcnemar_s_exact_test() -> None:
    a, b = [100] * 9 + [0] * 3 + [100] * 20, [0] * 9 + [100] * 3 + [100] * 20
    found = compare(scores(a), scores(b), "binary")
    assert found.p_value == pytest.approx(2 * sum(math.comb(12, k) for k in range(4)) / 2**12)
    assert found.p_less == pytest.approx(1 - sum(math.comb(12, k) for k in range(3)) / 2**12)
    assert (found.difference, found.n_items, found.n_seeds) == (pytest.approx(600 / 32), 32, 1)
    # Agresti and Min by hand: half an item more in each of the four fields.
    n, wins, losses = 34, 9.5, 3.5
    half = stats.t.ppf(0.975, 31) * math.sqrt(wins + losses - (wins - losses) ** 2 / n) / n
    assert found.ci95 == pytest.approx((100 * (6 / n - half), 100 * (6 / n + half)))


def test_mcnemar_s_test_is_that_of_statsmodels() -> None:
    items = np.array([100.0] * 7 + [-100.0] * 2 + [0.0] * 30)
    assert mcnemar(items)[0] == pytest.approx(contingency_tables.mcnemar([[15, 7], [2, 15]], exact=True).pvalue)


def test_sign_flips_of_few_items_are_all_tried() -> None:
    items = np.array([3.0, 1.0, 4.0, -1.0, 5.0, 0.0])
    sums = [sum(s * v for s, v in zip(signs, items[:5], strict=True)) for signs in itertools.product((1, -1), repeat=5)]
    p_greater = np.mean([total >= 12 for total in sums])
    assert sign_flip(items) == (pytest.approx(2 * p_greater), pytest.approx(np.mean([total <= 12 for total in sums])))
    assert sign_flip(-items)[1] == pytest.approx(p_greater)


def test_sign_flips_of_many_items_agree_with_scipy() -> None:
    items = np.random.default_rng(5).normal(0.12, 1, 300)
    for alternative, p_value in zip(("two-sided", "less"), sign_flip(items), strict=True):
        expected = stats.permutation_test(
            (items,),
            np.mean,
            permutation_type="samples",
            alternative=alternative,
            n_resamples=4999,
            rng=np.random.default_rng(6),
        )
        assert p_value == pytest.approx(expected.pvalue, abs=0.02)
    assert sign_flip(items) != sign_flip(items, seed=1)


@pytest.mark.parametrize("seed_sd", [0.0, 5.0, 20.0])
def test_several_seeds_give_the_analysis_of_variance_by_hand(seed_sd: float) -> None:
    random = np.random.default_rng(0)
    a, b = (
        mean + random.normal(0, seed_sd, (seeds, 1)) + random.normal(0, 10, (seeds, 40))
        for mean, seeds in ((50, 3), (45, 4))
    )
    found = compare(scores(a), scores(b), "continuous")
    seeds, rest = [], []
    for rows in (a, b):
        seeds.append(rows.mean(axis=1).var(ddof=1) / len(rows))
        fitted = rows.mean(axis=1, keepdims=True) + rows.mean(axis=0) - rows.mean()
        rest.append(((rows - fitted) ** 2).sum() / ((len(rows) - 1) * 39) / (len(rows) * 40))
    items = (a.mean(axis=0) - b.mean(axis=0)).var(ddof=1) / 40
    beyond = sum(seeds) - sum(rest)
    assert (beyond < 0) == (seed_sd == 0)  # both sides are tried
    variance = max(items + (beyond if beyond > 0 else beyond / 2), sum(seeds), items / 2)
    # What of a seeds' variance the rest explains is in doubt by 0.8.
    doubt = [part - 0.2 * min(part, own) for part, own in zip(seeds, rest, strict=True)]
    freedom = variance**2 / (doubt[0] ** 2 / 2 + doubt[1] ** 2 / 3 + items**2 / 39)
    ratio = (a.mean() - b.mean()) / math.sqrt(variance)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(ratio), freedom))
    assert found.p_less == pytest.approx(stats.t.cdf(ratio, freedom))
    assert (found.n_seeds, found.n_items) == (3, 40)


def test_the_two_sides_mirror_each_other() -> None:
    random = np.random.default_rng(1)
    for kind, a, b in (
        ("binary", binary(random, 0.5, (1, 50)), binary(random, 0.4, (1, 50))),
        ("binary", binary(random, 0.5, (3, 50)), binary(random, 0.4, (2, 50))),
        ("continuous", random.random((2, 50)), random.random((3, 50))),
    ):
        one, other = compare(scores(a), scores(b), kind), compare(scores(b), scores(a), kind)
        assert one.difference == pytest.approx(-other.difference)
        assert one.ci95 == pytest.approx((-other.ci95[1], -other.ci95[0]))
        assert one.p_value == pytest.approx(other.p_value)
        assert one.min_detectable_effect == pytest.approx(other.min_detectable_effect)


def test_seeds_that_spread_widely_are_no_finding_however_many_items() -> None:
    a = np.repeat([[40.0], [60.0], [50.0]], 2000, axis=1) + np.random.default_rng(2).normal(0, 1, (3, 2000))
    b = a - 3
    assert compare(scores(a[:1]), scores(b[:1]), "continuous").p_value < 0.001  # these two models differ
    assert compare(scores(a), scores(b), "continuous").p_value > 0.5  # the methods may not


def test_a_single_seed_against_several_is_taken_to_spread_as_they_do() -> None:
    random = np.random.default_rng(3)
    b = random.normal(50, 10, (3, 200)) + np.array([[-8.0], [0.0], [8.0]])
    alone = compare(scores(b[1]), scores(b), "continuous")
    fixed = compare(scores(b[1], fixed=True), scores(b), "continuous")
    assert alone.min_detectable_effect > 1.5 * fixed.min_detectable_effect
    assert (alone.n_seeds, fixed.n_seeds) == (1, 3)


def test_only_items_of_both_with_the_same_prompt_and_a_score_count() -> None:
    values = [0.0, 100.0, 0.0, 100.0, 0.0, 100.0]
    a = scores(values, prompts=tuple("abcdef"))
    b = scores([*values[:4], float("nan"), 100.0], prompts=tuple("bcdXfg"), start=1)
    found = compare(a, b, "binary")
    # Shared ids 1 to 5; item 4 was asked otherwise, item 5 has no score in b.
    assert (found.n_items, found.n_excluded, found.n_prompts_differ) == (3, 3, 1)
    assert found.difference == pytest.approx(100 * (2 - 1) / 3)
    assert compare(a, b, "binary", same_prompts=False).n_items == 4


def test_what_has_nothing_in_common_is_an_error_that_says_why() -> None:
    a = scores([0.0, 100.0], prompts=("a", "b"))
    with pytest.raises(InputError, match=r"0 items in common \(0 on one side only.*2 with different prompts\); fix: "):
        compare(a, scores([0.0, 100.0], prompts=("c", "d")), "binary")


def test_scores_that_agree_everywhere_leave_room_for_a_difference_of_few_items() -> None:
    found = compare(scores(np.full((1, 50), 100.0)), scores(np.full((1, 50), 100.0)), "binary")
    assert (found.difference, found.p_value) == (0.0, 1.0)
    assert found.ci95[0] == -found.ci95[1] == pytest.approx(-100 * stats.t.ppf(0.975, 49) / 52)


def test_holm_s_adjustment_is_that_of_the_textbook() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_s_adjustment_is_that_of_statsmodels() -> None:
    random = np.random.default_rng(8)
    for size in (1, 2, 5, 40):
        values = np.round(random.random(size) ** 3, 2)  # with equal ones
        assert holm(list(values)) == pytest.approx(multitest.multipletests(values, method="holm")[1])


def test_a_comparison_repeats_itself() -> None:
    random = np.random.default_rng(4)
    a, b = scores(random.random((1, 300))), scores(random.random((1, 300)))
    assert compare(a, b, "continuous") == compare(a, b, "continuous")
    assert isinstance(compare(a, b, "continuous", seed=1), PairedComparison)


@pytest.mark.parametrize(("seeds", "seed_sd", "is_capped"), [(2, 0.0, True), (5, 0.0, True), (5, 8.0, False)])
def test_one_test_of_many_has_at_most_three_times_the_degrees_of_freedom_of_the_seeds(
    seeds: int, seed_sd: float, is_capped: bool
) -> None:
    random = np.random.default_rng(3)
    rows = [50 + random.normal(0, seed_sd, (seeds, 1)) + random.normal(0, 5, (seeds, 200)) for _ in range(2)]
    rows[0] += random.normal(0, 20, 200)  # of the items alone, whose number gives many degrees of freedom
    items = rows[0].mean(axis=0) - rows[1].mean(axis=0)
    error = spread(items, rows)
    assert (error.freedom > 3 * (seeds - 1)) == is_capped
    found = compare(*(scores(each) for each in rows), "continuous")
    expected = 2 * stats.t.sf(abs(items.mean()) / error.error, min(error.freedom, 3 * (seeds - 1)))
    assert found.p_value_of_many == pytest.approx(expected)
    assert (found.p_value_of_many > found.p_value) == is_capped
    assert holm_of([found]) == [found.p_value]
    assert holm_of([found, found]) == pytest.approx(holm([found.p_value_of_many] * 2))
    assert holm_of([found, found], less=True) == pytest.approx(holm([found.p_less_of_many] * 2))

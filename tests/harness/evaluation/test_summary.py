"""What several samples of a problem, categories and parts of a score come to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from harness.evaluation.summary import summarise
from harness.metrics.sample import SampleScore
from harness.statistics.intervals import clustered_wilson_interval, weighted_mean_and_error, wilson_interval
from harness.tasks.task import Metric, OverSamples, Task


class Contest(Task):
    name, version, max_new_tokens = "contest", "1", 8
    metrics = (Metric("answer"),)
    over_samples: tuple[OverSamples, ...] = ("avg", "maj", "pass")

    def documents(self) -> list[dict[str, Any]]:
        return []

    def prompt(self, doc: dict[str, Any]) -> str:
        return ""

    def reference(self, doc: dict[str, Any]) -> str:
        return ""

    def score_outputs(self, docs: Any, outputs: Any, advance: Any) -> list[SampleScore]:
        return []

    def answer_key(self, extracted: str) -> int:
        return int(extracted)


def answers(identifier: str, right: str, *given: str | None) -> list[dict[str, Any]]:
    return [
        {
            "id": identifier,
            "scores": {"answer": 100.0 * (answer is not None and int(answer) == int(right))},
            "extracted": {"answer": answer},
            "outcome": "invalid" if answer is None else "scored",
        }
        for answer in given
    ]


def values(samples: list[dict[str, Any]], task: Task | None = None) -> dict[str, float]:
    return {name: metric["value"] for name, metric in summarise(task or Contest(), samples)["metrics"].items()}


def test_the_mean_the_majority_and_one_right_of_k_are_counted_over_problems() -> None:
    samples = [
        *answers("a", "7", "7", "007", "3", "4"),  # the majority is right: 7 and 007 are one answer
        *answers("b", "5", "6", "6", "5", "1"),  # it is wrong, and one of four is right
        *answers("c", "9", "1", "2", "3", "4"),
        *answers("d", "2", None, None, None, "2"),  # one vote is a majority of one
    ]
    found = values(samples)
    assert found["answer"] == found["avg@4"] == pytest.approx(100 * (2 + 1 + 0 + 1) / 16)
    assert found["maj@4"] == 50.0
    assert found["pass@4"] == 75.0


def test_answers_with_equally_many_votes_share_the_majority_in_any_order() -> None:
    tie = answers("a", "7", "7", "3", "7", "3")
    assert values(tie)["maj@4"] == values(tie[::-1])["maj@4"] == 50.0
    assert values(answers("a", "7", None, None))["maj@2"] == 0.0


def test_a_problem_whose_samples_could_not_be_scored_is_in_no_majority() -> None:
    broken = [{**sample, "scores": {"answer": None}} for sample in answers("b", "1", "1", "1")]
    metrics = summarise(Contest(), [*answers("a", "7", "7", "7"), *broken])["metrics"]
    assert (metrics["maj@2"]["value"], metrics["maj@2"]["n"]) == (100.0, 1)


def test_a_majority_is_that_of_the_first_k_samples() -> None:
    samples = [*answers("a", "7", "7", "7", "3", "3", "3"), *answers("b", "1", "1", "1")]
    assert values(samples)["maj@2"] == 100.0


def test_k_is_the_smallest_number_of_samples_and_one_sample_each_says_nothing_of_k() -> None:
    assert "pass@2" in values([*answers("a", "1", "1", "1", "2"), *answers("b", "1", "2", "2")])
    assert list(values([*answers("a", "1", "1"), *answers("b", "1", "2")])) == ["answer"]


def test_sixteen_samples_of_thirty_problems_are_thirty_problems() -> None:
    random = np.random.default_rng(0)
    right = random.random((30, 1)) < 0.5  # a problem is solved always or never
    samples = [
        sample
        for problem in range(30)
        for sample in answers(str(problem), "1", *(["1" if right[problem, 0] else "2"] * 16))
    ]
    metric = summarise(Contest(), samples)["metrics"]["avg@16"]
    low, high = wilson_interval(right.sum(), 30)
    assert metric["ci95"] == pytest.approx([100 * low, 100 * high], abs=1e-3)
    assert metric["n"] == 30


def test_an_interval_narrows_where_the_samples_of_a_problem_differ_but_never_below_independent_trials() -> None:
    alternating = [sample for problem in range(30) for sample in answers(str(problem), "1", *("12" * 8))]
    metric = summarise(Contest(), alternating)["metrics"]["avg@16"]
    assert metric["ci_method"] == "wilson-clustered"
    low, high = metric["ci95"]
    independent = wilson_interval(240, 480)
    assert low < 100 * independent[0] < 100 * independent[1] < high  # Student's quantile is a little wider
    assert high - low < 12


def test_a_mean_of_parts_is_weighted_by_their_number() -> None:
    task = Contest()
    task.metrics = (Metric("answer"), Metric("part"))
    samples = [
        {"id": name, "scores": {"answer": 0.0, "part": value}, "weights": {"part": weight}, "outcome": "scored"}
        for name, value, weight in (("a", 100.0, 1), ("b", 50.0, 2), ("c", 0.0, 3))
    ]
    metric = summarise(task, samples)["metrics"]["part"]
    assert metric["value"] == pytest.approx(100 * 2 / 6, abs=1e-3)
    assert metric["n"] == 3
    assert metric["ci95"][0] < metric["value"] < metric["ci95"][1]


def test_the_error_of_a_weighted_mean_is_that_of_a_ratio() -> None:
    random = np.random.default_rng(1)
    drawn = []
    for _ in range(2000):
        weights = random.integers(1, 4, 60)
        shares = random.binomial(weights, 0.6) / weights
        drawn.append(weighted_mean_and_error(shares, weights))
    means, errors = np.array(drawn).T
    assert errors.mean() == pytest.approx(means.std(), rel=0.05)
    equal = weighted_mean_and_error([1.0, 0.0, 1.0], [2, 2, 2])
    assert equal[1] == pytest.approx(np.std([1.0, 0.0, 1.0], ddof=1) / np.sqrt(3))


def test_categories_have_a_value_each_and_their_mean_counts_each_once() -> None:
    samples = [
        {**sample, "category": category}
        for category, given in (("large", ["1", "1", "1", "2"]), ("small", ["2"]), ("other", ["1"]))
        for number, answer in enumerate(given)
        for sample in answers(f"{category}/{number}", "1", answer)
    ]
    summary = summarise(Contest(), samples)
    assert summary["categories"] == {
        "large": {"value": 75.0, "n": 4},
        "other": {"value": 100.0, "n": 1},
        "small": {"value": 0.0, "n": 1},
    }
    assert summary["metrics"]["answer"]["value"] == pytest.approx(100 * 4 / 6, abs=1e-3)
    macro = summary["metrics"]["answer_macro"]
    assert macro["value"] == pytest.approx(175 / 3, abs=1e-3)
    assert (macro["stderr"], macro["ci95"]) == (None, None)  # a category of one problem shows no spread


def test_the_error_of_the_mean_of_categories_adds_their_variances() -> None:
    samples = [
        {**sample, "category": category}
        for category in ("a", "b")
        for number in range(10)
        for sample in answers(f"{category}/{number}", "1", "1" if number < 4 else "2")
    ]
    macro = summarise(Contest(), samples)["metrics"]["answer_macro"]
    error = 100 * np.std([1.0] * 4 + [0.0] * 6, ddof=1) / np.sqrt(10)
    assert macro["stderr"] == pytest.approx(error / np.sqrt(2), abs=1e-3)
    assert macro["ci95"][0] < 40 < macro["ci95"][1]


@pytest.mark.parametrize(("shape", "least"), [((2.0, 2.0), 0.93), ((0.1, 0.9), 0.91)])
def test_the_clustered_interval_holds_the_truth_of_few_problems(shape: tuple[float, float], least: float) -> None:
    random, truth, held = np.random.default_rng(2), shape[0] / sum(shape), 0
    for _ in range(1000):
        rates = random.binomial(16, random.beta(*shape, 30)) / 16
        low, high = clustered_wilson_interval(rates.mean(), rates.std(ddof=1) / np.sqrt(30), 30, 480)
        held += low <= truth <= high
    assert held / 1000 >= least


def test_samples_that_all_agree_still_have_an_interval_of_some_width() -> None:
    assert clustered_wilson_interval(0.0, 0.0, 30, 480)[1] > 0.1
    assert clustered_wilson_interval(1.0, 0.0, 30, 480)[0] < 0.9
    assert clustered_wilson_interval(0.5, 0.1, 1, 16)[0] < 0.5

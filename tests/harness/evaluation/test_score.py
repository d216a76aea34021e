"""Files of predictions in, samples and a summary out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.evaluation.score import read_predictions, score_predictions
from harness.evaluation.summary import summarise
from harness.metrics.sample import SampleScore
from harness.tasks.task import Metric, Task


class Toy(Task):
    """Two questions; the score of an output is the number it says."""

    name, version, max_new_tokens = "toy", "1", 8

    def __init__(self, metric: Any) -> None:
        self.metrics = (metric,)

    def documents(self) -> Any:
        return [{"id": "a"}, {"id": "b"}]

    def prompt(self, doc: Any) -> Any:
        return doc["id"]

    reference = prompt

    def score_outputs(self, docs: Any, outputs: Any, advance: Any) -> Any:
        scores = []
        for output in outputs:
            value = None if output == "?" else float(output or 0)
            outcome = "harness_error" if value is None else "invalid" if output == "" else "scored"
            scores.append(SampleScore({metric.name: value for metric in self.metrics}, {"n": output or None}, outcome))
            advance()
        return scores


def toy(name: str = "accuracy", kind: str = "binary") -> Any:
    return Toy(Metric(name, kind=kind))


@pytest.fixture
def write(tmp_path: Path) -> Callable:
    def write_lines(*lines: Any) -> Path:
        path = tmp_path / "predictions.jsonl"
        path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
        return path

    return write_lines


def line(identifier: bool | str, output: int | str | None, **more: Any) -> dict[str, Any]:
    return {"id": identifier, "output": output, **more}


def test_samples_come_in_the_data_set_s_order_and_samples_of_one_id_are_numbered(write: Callable) -> None:
    path = write(line("b", "0"), line("a", "100"), line("b", "100"))
    samples, summary = score_predictions(toy(), path)
    assert [(sample["id"], sample["index"]) for sample in samples] == [("a", 0), ("b", 0), ("b", 1)]
    assert samples[0] == {
        "id": "a",
        "index": 0,
        "scores": {"accuracy": 100.0},
        "extracted": {"n": "100"},
        "outcome": "scored",
    }
    # The mean over prompts of the mean over samples, not the mean over samples.
    assert summary["metrics"]["accuracy"]["value"] == 75.0
    assert summary["metrics"]["accuracy"]["n"] == 2
    assert summary["n"]["total"] == 3


def test_progress_is_told(write: Callable) -> None:
    steps = []
    score_predictions(
        toy(), write(line("a", "0"), line("b", "0")), progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"predictions\.jsonl: the file is empty"),
        (["", " "], r"predictions\.jsonl: the file is empty"),
        ([line("a", "0"), "{broken"], r"predictions\.jsonl:2: not JSON"),
        (["[1]"], r":1: not a JSON object"),
        ([{"output": "0"}], r':1: key "id" is missing'),
        ([{"id": "a"}], r':1: key "output" is missing'),
        ([line("a", 3)], r':1: key "output" is 3; fix: make it a string'),
        ([line("a", None)], r':1: key "output" is null'),
        ([line(True, "0")], r':1: key "id" is true'),
        ([line("a", "0", finish_reason=1)], r':1: key "finish_reason" is 1'),
        ([line("a", "0"), line("c", "0"), line("b", "0")], r"predictions\.jsonl:2: 1 unknown id \('c'\)"),
        ([line("a", "0")], r"no prediction for 1 id \('b'\) of 2; .* a subset is not scored"),
    ],
)
def test_a_file_that_cannot_be_scored_is_refused_with_the_place(
    write: Callable, lines: list[Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score_predictions(toy(), write(*lines))


def test_a_missing_file_and_broken_bytes_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.jsonl: no such file"):
        read_predictions(tmp_path / "absent.jsonl")
    path = tmp_path / "bytes.jsonl"
    path.write_bytes(b'{"id": "a", "output": "\xff"}\n')
    with pytest.raises(InputError, match=r"bytes\.jsonl:1: not UTF-8 text"):
        read_predictions(path)


def test_numbers_serve_as_ids_and_lines_end_at_newlines_only(write: Callable) -> None:
    predictions = read_predictions(write('{"id": 0, "output": "x\u2028y"}', "", '{"id": 1, "output": "\\ud800z"}'))
    assert [(prediction.id, prediction.output) for prediction in predictions] == [("0", "x\u2028y"), ("1", "\ufffdz")]


def sample(identifier: str, score: float | None, outcome: str = "scored", **more: Any) -> dict[str, Any]:
    return {"id": identifier, "scores": {"accuracy": score}, "outcome": outcome, **more}


def test_the_summary_counts_each_kind_of_sample() -> None:
    samples = [
        sample("a", 100.0, finish_reason="stop"),
        sample("b", 0.0, "invalid", finish_reason="length"),
        sample("c", None, "harness_error"),
    ]
    summary = summarise(toy(), samples)
    assert summary["n"] == {"total": 3, "scored": 2, "invalid": 1, "truncated": 1, "harness_error": 1}
    # What the harness could not score is no wrong answer.
    assert summary["metrics"]["accuracy"]["value"] == 50.0
    assert summary["metrics"]["accuracy"]["n"] == 2


def test_a_binary_metric_has_wilson_s_interval_and_a_mean_over_samples_one_over_problems() -> None:
    binary = summarise(toy(), [sample(str(i), 100.0 * (i < 3)) for i in range(10)])["metrics"]["accuracy"]
    assert binary["ci_method"] == "wilson"
    assert binary["ci95"] == pytest.approx([10.7791, 60.3222], abs=1e-3)
    assert binary["stderr"] == pytest.approx(15.2753, abs=1e-3)
    several = summarise(toy(), [sample(str(i % 5), 100.0 * (i < 3)) for i in range(10)])["metrics"]["accuracy"]
    assert several["ci_method"] == "wilson-clustered"
    assert several["n"] == 5
    assert several["ci95"][0] < several["value"] < several["ci95"][1]


def test_a_continuous_metric_has_the_bootstrap_s_interval_even_where_all_values_are_extreme() -> None:
    metric = summarise(toy(kind="continuous"), [sample("a", 0.0), sample("b", 100.0)])["metrics"]["accuracy"]
    assert metric["ci_method"] == "bootstrap"
    assert summarise(toy(kind="continuous"), [sample("a", 40.0)])["metrics"]["accuracy"]["ci95"] is None


def test_where_nothing_could_be_scored_there_is_no_number_but_a_reason() -> None:
    metric = summarise(toy(), [sample("a", None, "harness_error")])["metrics"]["accuracy"]
    assert (metric["value"], metric["stderr"], metric["ci95"], metric["n"]) == (None, None, None, 0)
    assert metric["reason"] == "no sample could be scored"


def passes(right: int, of: int, identifier: str = "a") -> list[dict[str, Any]]:
    return [
        {"id": identifier, "scores": {"pass@1": 100.0 * (i < right)}, "outcome": "passed" if i < right else "failed"}
        for i in range(of)
    ]


def test_pass_at_k_has_a_value_where_every_problem_has_k_samples_and_else_a_reason() -> None:
    metrics = summarise(toy("pass@1"), passes(2, 12) + passes(0, 10, "b"))["metrics"]
    assert list(metrics) == ["pass@1", "pass@10", "pass@100"]
    assert metrics["pass@1"]["value"] == pytest.approx(100 * (2 / 12) / 2, abs=1e-4)
    # 1 - C(10, 10) / C(12, 10) for the one, 0 for the other.
    assert metrics["pass@10"]["value"] == pytest.approx(100 * (1 - 1 / 66) / 2, abs=1e-4)
    assert metrics["pass@100"]["value"] is None
    assert metrics["pass@100"]["reason"] == "a problem has fewer than 100 samples that could be run"
    fewer = summarise(toy("pass@1"), passes(2, 12) + passes(0, 9, "b"))["metrics"]["pass@10"]
    assert (fewer["value"], fewer["reason"]) == (None, "a problem has fewer than 10 samples that could be run")
    assert list(summarise(toy("pass@1"), passes(1, 1))["metrics"]) == ["pass@1"]  # one sample each: nobody asked
    assert summarise(toy("pass@1"), passes(1, 100))["metrics"]["pass@100"]["value"] == 100.0


def test_pass_at_k_is_unknown_where_the_harness_failed_too_often() -> None:
    broken = {"id": "a", "scores": {"pass@1": None}, "outcome": "harness_error"}
    metric = summarise(toy("pass@1"), [*passes(2, 9), broken])["metrics"]["pass@10"]
    assert metric["value"] is None
    assert "fewer than 10" in metric["reason"]

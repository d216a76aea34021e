"""Verdicts of a run against a baseline: what fails, what does not, and what is only said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness import tasks
from harness.metrics import numbers
from harness.regression.baseline import Baseline, make_baseline, read_run
from harness.regression.check import CellVerdict, CheckReport, check_run
from helpers.planted_defects import first_number
from helpers.stored_runs import ENVIRONMENT, answers, write_evaluation

ITEMS, RIGHT = 100, 60
MATH, INSTRUCT = "teacher__student/kd/small_math", "teacher__student/kd/small_instruct"
OTHER_TORCH = ENVIRONMENT.model_copy(update={"versions": {"torch": "2.14.0"}})


def write_both(root: Path, right: int = RIGHT, **options: Any) -> Path:
    for name in ("small_math", "small_instruct"):
        write_evaluation(root, answers(name, right, ITEMS), task_name=name, **options)
    return root


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Baseline:
    root = write_both(tmp_path_factory.mktemp("before"))
    return make_baseline(root, read_run(root), "first")


def cell(report: CheckReport, name: str = MATH) -> CellVerdict:
    return next(cell for cell in report.cells if cell.name == name)


def test_an_unchanged_run_passes_twenty_times_out_of_twenty(baseline: Baseline, tmp_path: Path) -> None:
    root = write_both(tmp_path)
    for _ in range(20):
        report = check_run(baseline, read_run(root))
        assert report.verdict == "pass"
        assert [(one.verdict, one.reasons, one.difference) for one in report.cells] == [("pass", [], 0.0)] * 2


def test_a_large_drop_is_a_regression_wherever_it_was_measured(baseline: Baseline, tmp_path: Path) -> None:
    report = check_run(baseline, read_run(write_both(tmp_path, RIGHT - 20, environment=OTHER_TORCH)))
    assert {one.verdict for one in report.cells} == {"regress"}
    assert cell(report).difference == -20
    assert cell(report).p_value == pytest.approx(2 * 0.5**20)  # 20 items changed, all for the worse; two cells
    assert "more than the margin of 2" in cell(report).reasons[0]
    assert "more than the margin of 1," in cell(report, INSTRUCT).reasons[0]


def test_a_drop_within_noise_is_inconclusive_and_a_rise_is_none(baseline: Baseline, tmp_path: Path) -> None:
    slightly = check_run(baseline, read_run(write_both(tmp_path / "a", RIGHT - 3, settings="others")))
    assert slightly.verdict == cell(slightly).verdict == "inconclusive"
    assert "within noise" in cell(slightly).reasons[0]
    better = check_run(baseline, read_run(write_both(tmp_path / "b", RIGHT + 30, settings="others")))
    assert better.verdict == "pass"


def test_a_drop_within_the_margin_is_no_regression_however_sure_it_is(baseline: Baseline, tmp_path: Path) -> None:
    run = read_run(write_both(tmp_path, RIGHT - 20, environment=OTHER_TORCH))
    report = check_run(baseline, run, margins={"numeric": 25, "rouge_l": 50})
    assert cell(report).p_value is not None
    assert cell(report).p_value < 0.01
    assert report.verdict == "inconclusive"
    assert check_run(baseline, run, margins={"binary": 25}).verdict == "regress"  # by small_instruct
    with pytest.raises(InputError, match=r"--margin bleu: no such metric .* numeric, rouge_l"):
        check_run(baseline, run, margins={"bleu": 1})


def test_changed_outputs_fail_where_only_the_code_can_have_changed_them(baseline: Baseline, tmp_path: Path) -> None:
    outputs = answers("small_math", RIGHT, ITEMS)
    outputs["3"] += "\nThat is all."  # as right as before

    def verdicts(root: Path, **options: Any) -> list[str]:
        write_both(root, **options)
        write_evaluation(root, outputs, **options)
        run = read_run(root)
        reports = [check_run(baseline, run, exact_outputs=rule) for rule in ("auto", "always", "never")]
        assert all(cell(report).changed == ["3"] for report in reports)
        assert "1 of 100 outputs changed (3)" in cell(reports[0]).reasons[0]
        return [report.verdict for report in reports]

    assert verdicts(tmp_path / "same") == ["regress", "regress", "inconclusive"]
    assert verdicts(tmp_path / "settings", settings="others") == ["pass", "regress", "pass"]
    for number, other in enumerate(
        [
            OTHER_TORCH,
            ENVIRONMENT.model_copy(update={"device": "a GPU"}),
            ENVIRONMENT.model_copy(update={"threads": 2}),
            ENVIRONMENT.model_copy(update={"cpu": "another processor"}),
            ENVIRONMENT.model_copy(update={"engine": "vllm"}),
        ]
    ):
        assert verdicts(tmp_path / str(number), environment=other) == ["pass", "regress", "pass"]


def test_a_broken_answer_rule_is_caught_on_unchanged_outputs(
    baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbers, "find_final_number", first_number)
    report = check_run(baseline, read_run(write_both(tmp_path)))
    assert (cell(report).verdict, cell(report).changed) == ("regress", [])
    assert cell(report, INSTRUCT).verdict == "pass"


def test_what_is_asked_otherwise_is_a_regression_and_what_is_missing_leaves_no_verdict(
    baseline: Baseline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reasons(name: str, change: Any = lambda samples: samples, outputs: Any = None, verdict: str = "regress") -> str:
        root = write_both(tmp_path / name)
        write_evaluation(root, outputs or answers("small_math", RIGHT, ITEMS), change=change)
        report = check_run(baseline, read_run(root))
        assert (cell(report).verdict, report.verdict) == (verdict, verdict)
        assert cell(report, INSTRUCT).verdict == "pass"
        return "; ".join(cell(report).reasons)

    def other_prompt(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**samples[0], "prompt": "?"}, *samples[1:]]

    def unscored(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        none = dict.fromkeys(samples[0]["scores"])
        return [{**samples[0], "scores": none, "outcome": "harness_error"}, *samples[1:]]

    assert "2 of 100 items missing (98, 99)" in reasons("items", lambda samples: samples[:98], verdict="incomplete")
    assert "the prompts' hash changed" in reasons("prompts", other_prompt)
    assert "1 items without a score" in reasons("score", unscored, verdict="incomplete")
    assert "1 items with another number of samples (5)" in reasons("samples", lambda samples: [*samples, samples[5]])
    # What is there is judged all the same: with half of its items missing the rest is as bad as before.
    bad = reasons("bad", lambda samples: samples[:50], answers("small_math", 2, ITEMS))
    assert "worse: " in bad
    assert "50 of 100 items missing" in bad
    few = read_run(write_evaluation(tmp_path / "few", answers("small_math", 1, 1)).parents[5])
    assert {one.verdict for one in check_run(baseline, few).cells} == {
        "incomplete"
    }  # one item says nothing, and nothing breaks
    monkeypatch.setitem(tasks.load("small_math").__dict__, "version", "99")
    assert "the task's version changed, 2 -> 99" in reasons("version")


def test_missing_cells_and_seeds_fail_and_more_of_them_are_only_noted(tmp_path: Path) -> None:
    outputs = answers("small_math", RIGHT, ITEMS)
    for method, seed in (("kd", 1), ("kd", 2), ("sft", 1)):
        write_evaluation(tmp_path / "all", outputs, method=method, seed=seed)
    write_evaluation(tmp_path / "less", outputs)
    every, less = read_run(tmp_path / "all"), read_run(tmp_path / "less")
    report = check_run(make_baseline(tmp_path, every, "all"), less)
    assert [(one.name.split("/")[1], one.verdict, one.reasons) for one in report.cells] == [
        ("kd", "incomplete", ["seed 2 is missing"]),
        ("sft", "incomplete", ["the run does not have it"]),
    ]
    report = check_run(make_baseline(tmp_path, less, "few"), every)
    assert report.verdict == "pass"
    assert any("not in the baseline, so not checked: teacher__student/sft/small_math" in note for note in report.notes)
    assert any("seeds 2 are not in the baseline" in note for note in report.notes)


def test_several_seeds_are_weighed_with_their_spread(tmp_path: Path) -> None:
    """One bad seed of three is what seeds do; all three worse is a regression."""

    def run(name: str, *right: int) -> Any:
        for seed, count in enumerate(right):
            write_evaluation(tmp_path / name, answers("small_math", count, ITEMS), seed=seed, settings=name)
        return read_run(tmp_path / name)

    before = make_baseline(tmp_path, run("before", 60, 63, 58), "first")
    assert check_run(before, run("one", 61, 62, 40)).verdict == "inconclusive"
    assert check_run(before, run("all", 21, 20, 23)).verdict == "regress"

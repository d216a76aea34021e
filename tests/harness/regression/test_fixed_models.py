"""The committed models and texts, with the code as it is and with defects planted: a part of the cells, each kind of them."""

from __future__ import annotations

import pytest

from harness.regression.fixed.baseline import measure, read_fixed_baseline
from harness.regression.fixed.check import FixedReport, check_fixed
from harness.regression.fixed.completions import measure_scores
from harness.regression.fixed.first_steps import cell_of, shipped_methods
from harness.regression.fixed.folder import TASKS, FixedFolder
from harness.regression.fixed.outputs import LogitGaps
from harness.regression.fixed.records import Behaviour
from helpers.paths import ROOT
from helpers.planted_defects import planted

FOLDER = FixedFolder(ROOT / "results" / "regression" / "fixed")


def check(*methods: str, models: tuple[str, ...] = ()) -> FixedReport:
    """The check of some cells: the first steps of methods, the outputs of models, and all scores."""
    baseline = read_fixed_baseline(FOLDER)
    before = baseline.behaviour
    cells = [cell_of(name) for name in methods]
    before.first_steps = {cell: before.first_steps[cell] for cell in cells}
    before.outputs = {cell: each for cell, each in before.outputs.items() if cell.split("/")[0] in models}
    found = measure(FOLDER, allow_code_execution=True, methods=methods, models=models)
    return check_fixed(baseline, found, LogitGaps(FOLDER))


def caught(report: FixedReport) -> dict[str, str]:
    return {cell.name: cell.reasons[0] for cell in report.cells if cell.verdict == "regress"}


def test_the_code_as_it_is_passes() -> None:
    report = check("sft", "kd", "opd", models=("cross",))
    assert report.verdict == "pass", report
    assert [cell.name for cell in report.cells if cell.reasons] == []
    assert [cell.name for cell in report.cells][3:6] == [f"outputs cross/{task}" for task in TASKS]


def test_a_learning_rate_that_is_doubled_shows_in_the_loss_of_the_second_step() -> None:
    with planted("learning rate"):
        found = caught(check("kd"))
    assert list(found) == ["first steps same/kd"]
    assert "step 1" not in found["first steps same/kd"]
    assert "step 2: loss" in found["first steps same/kd"]


def test_labels_off_by_one_show_in_the_first_loss() -> None:
    with planted("labels"):
        found = caught(check("sft"))
    assert "step 1: loss" in found["first steps cross/sft"]


def test_a_wrong_temperature_shows_in_the_method_that_has_one_alone() -> None:
    with planted("temperature"):
        found = caught(check("kd", "sft"))
    assert list(found) == ["first steps same/kd"]
    assert "step 1: distillation" in found["first steps same/kd"]


def test_a_shifted_alignment_shows_between_two_vocabularies() -> None:
    with planted("alignment"):
        assert list(caught(check("dskd-v2-eta", "kd"))) == ["first steps cross/dskd-v2-eta"]


def test_padding_that_is_read_as_text_shows_in_outputs() -> None:
    with planted("padding"):
        found = caught(check(models=("same",)))
    assert set(found) == {f"outputs same/{task}" for task in TASKS}


def test_an_extractor_that_takes_the_first_number_shows_in_the_scores_of_stored_completions() -> None:
    baseline = read_fixed_baseline(FOLDER)
    baseline.behaviour = Behaviour(scores=baseline.behaviour.scores)

    def scored() -> FixedReport:
        scores = dict(measure_scores(FOLDER.completions, allow_code_execution=True))
        return check_fixed(baseline, Behaviour(scores=scores), LogitGaps(FOLDER))

    assert scored().verdict == "pass"
    with planted("extractor"):
        assert list(caught(scored())) == ["scores small_math"]


@pytest.mark.parametrize("method", shipped_methods())
def test_every_method_that_ships_is_in_the_baseline(method: str) -> None:
    assert len(read_fixed_baseline(FOLDER).behaviour.first_steps[cell_of(method)].steps) == 3


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.path.rglob("*") if path.is_file()) < 800_000

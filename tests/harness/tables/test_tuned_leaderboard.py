"""Tuned methods in the leaderboard: beside their defaults, ranked among themselves, with what tuning gave and cost."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.report.document import make_document
from harness.results.export import read_export
from harness.results.item_scores import stack
from harness.results.load import load_results
from harness.runs.identity import Fingerprint
from harness.runs.store import OutputFolder
from harness.statistics.paired_tests import compare
from harness.tables.leaderboard import make_leaderboard
from harness.tables.render import FORMATS, grids
from harness.tables.rows import Leaderboard
from harness.tables.sensitivity import sensitivities
from harness.tables.tuning_grids import CSV_FIELDS
from helpers.tuned_runs import TRIALS, tuning_record, write_tuned_run
from helpers.written_runs import write_run


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def board_of(folder: Path) -> Leaderboard:
    results = load_results(folder)
    assert results.problems == []
    return make_leaderboard(results.records, results.items)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_tuned_run(tmp_path / "run")


# --- ranks and marks ---


def test_tuned_methods_are_ranked_among_themselves_and_defaults_not_at_all(run: Path) -> None:
    rows = {row.method: row for row in board_of(run).rows}
    assert rows["sft"].value == 87.5 > (rows["gkd+tuned"].value or 0.0)
    assert [name for name, row in rows.items() if row.best] == ["gkd+tuned"]
    assert rows["kd+tuned"].tied is True
    for name in ("sft", "kd", "gkd"):
        assert (rows[name].best, rows[name].tied, rows[name].p_best) == (False, None, None)


def test_without_tuning_all_are_ranked_as_before(tmp_path: Path) -> None:
    board = board_of(write_tuned_run(tmp_path / "run", {}))
    assert [row.method for row in board.rows if row.best] == ["sft"]
    assert (board.tuning, board.gains) == ([], [])
    assert {row.method for row in board.rows if row.p_best is not None} == {"kd", "gkd", "kd+tuned", "gkd+tuned"}


def test_the_gap_of_tuned_methods_is_measured_from_a_tuned_baseline(tmp_path: Path) -> None:
    right = {"teacher": 40, "sft": 4, "sft+tuned": 20, "kd": 12, "kd+tuned": 30}
    tuned = {name: tuning_record() for name in ("sft", "kd")}
    rows = {row.method: row for row in board_of(write_tuned_run(tmp_path / "run", tuned, right=right)).rows}
    assert rows["kd+tuned"].gap_closed == 50.0
    assert rows["kd"].gap_closed == pytest.approx(100 * 8 / 36, abs=0.1)
    assert rows["sft+tuned"].gap_closed == 0.0


def test_the_table_marks_tuned_rows_and_says_what_was_not_tuned(run: Path) -> None:
    printed = invoke("leaderboard", run)
    lines = [line.split("|")[1].strip() for line in printed.stdout.splitlines() if line.startswith("| ")]
    assert lines == [
        *("method", "teacher", "sft", "gkd", "gkd+tuned ‡", "kd", "kd+tuned ‡", "min. detectable effect"),
    ]
    assert "‡: the setting was chosen by trials" in printed.stdout
    assert "- teacher -> student: not tuned, and so not ranked among the tuned: sft\n" in printed.stdout
    assert "what tuning gave" not in printed.stdout
    plain = invoke("leaderboard", write_run(run.parent / "plain"))
    assert "‡" not in plain.stdout


# --- what tuning gave ---


def test_what_tuning_gave_is_the_paired_comparison_with_the_default(run: Path) -> None:
    board, results = board_of(run), load_results(run)
    (gain,) = (gain for gain in board.gains if gain.method == "kd+tuned")
    assert (gain.default, gain.default_value, gain.tuned_value, gain.difference) == ("kd", 25.0, 75.0, 50.0)
    assert (gain.seeds, gain.n_items) == (2, 40)

    def scores(method: str) -> Any:
        found = [record for record in results.records if record.cell.method == method and record.cell.task]
        return stack([(record, results.items[record.cell.key]) for record in found], "numeric")

    expected = compare(scores("kd+tuned"), scores("kd"))
    assert gain.ci95 == pytest.approx(expected.ci95, abs=1e-4)
    assert gain.p_value == expected.p_value
    assert gain.p_holm == pytest.approx(min(1.0, 2 * expected.p_value_of_many))


def test_the_table_of_tuning_has_the_choice_the_budget_and_its_total(run: Path) -> None:
    board = board_of(run)
    board.tuning_tables = True
    (grid,) = (grid for grid in grids(board, False) if grid.title == "teacher -> student: what tuning gave")
    kd = dict(zip(grid.header, next(line for line in grid.lines if line[0] == "kd"), strict=True))
    assert kd["small_math"].startswith("25.0 → 75.0: +50.0 [+")
    assert kd["validation"] == "60.0 → 90.0"
    assert kd["chosen setting"] == "divergence forward_kl, kd_rate 0.7, training.learning_rate 0.0005 (trial 2)"
    assert (kd["budget"], kd["trials"], kd["trials: tokens"]) == ("6 trials", "6", "≥ 5,000")  # one diverged
    assert grid.lines[-1][0] == "all"
    assert grid.lines[-1][-3:] == ["12", "≥ 10,000", "≥ 100.0"]


def test_a_method_without_its_default_has_a_choice_and_no_gain(tmp_path: Path) -> None:
    right = {"teacher": 38, "kd+tuned": 30}
    board = board_of(write_tuned_run(tmp_path / "run", {"kd": tuning_record()}, right=right))
    assert board.gains == []
    board.tuning_tables = True
    assert "| kd     | 60.0 → 90.0 |" in FORMATS["md"](board, False)


def test_every_format_has_tuning_and_is_escaped(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>|\n# a\u202e\x1b[31m"
    trials = [({}, 10.0), ({hostile: hostile}, 20.0)]
    tuned = {"kd": tuning_record(trials, space={hostile: hostile}, rule=hostile, budget={hostile: hostile})}
    folder = write_tuned_run(tmp_path / "run", tuned, right={"teacher": 38, "kd": 10, "kd+tuned": 30})
    board = board_of(folder)
    board.tuning_tables = True
    for form in ("md", "html", "tex"):
        for text in (FORMATS[form](board, True), invoke("leaderboard", folder, "--trials", "--format", form).stdout):
            assert "alert(1)" in text, form
            assert not set("\u202e\x1b") & set(text), form
            assert "\n# a" not in text, form
            assert form == "tex" or "<script>" not in text, form
    document = json.loads(FORMATS["json"](board, False))
    assert document["tuning"][0]["settings"] == {hostile: hostile}
    assert document["tuning_gains"][0]["difference"] == 50.0


@pytest.mark.parametrize("value", ["1" + "0" * 400, "true", '"high"', "[1, 2]", "null"])
def test_values_that_no_axis_has_are_texts(run: Path, value: str) -> None:
    for path in run.glob("cells/*/kd+tuned/*/train/result.json"):
        path.write_text(path.read_text().replace('"kd_rate": 0.95', f'"kd_rate": {value}'))
    found = {each.option: each for each in sensitivities(board_of(run).tuning[1])}["kd_rate"]
    assert (found.scale, found.correlation) == ("linear" if value == "null" else "values", found.correlation)
    for form in FORMATS:
        assert invoke("leaderboard", run, "--trials", "--format", form).exit_code == 0
    assert make_document([run])[0]["tuning"]


def test_a_setting_that_is_no_number_is_a_problem_of_its_record(run: Path) -> None:
    (path,) = run.glob("cells/*/kd+tuned/seed1/train/result.json")
    path.write_text(path.read_text().replace('"kd_rate": 0.95', '"kd_rate": NaN'))
    (problem,) = load_results(run).problems
    assert "tuning.trials.4.settings: Value error, Out of range float values are not JSON compliant" in problem


def test_csv_says_of_each_row_whether_and_how_it_was_tuned(run: Path) -> None:
    board = board_of(run)
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(FORMATS["csv"](board, False)))}
    tuned = rows["kd+tuned"]
    assert [tuned[name] for name in CSV_FIELDS[2:8]] == ["90.0", "60.0", "6", "5000", "50.0", "50.0"]
    assert json.loads(tuned["settings"])["kd_rate"] == 0.7
    assert (rows["kd"]["tuned"], rows["kd"]["settings"], rows["teacher"]["tuned"]) == ("False", "", "")
    assert "tuned" not in FORMATS["csv"](board_of(write_run(run.parent / "plain")), False).splitlines()[0]


def test_costs_count_trials_of_the_method_and_not_of_each_seed(run: Path) -> None:
    text = invoke("leaderboard", run, "--costs").stdout
    (line,) = (line for line in text.splitlines() if line.startswith("| kd+tuned ‡") and "5,000" in line)
    assert [cell.strip() for cell in line.split("|")[-4:-1]] == ["6", "≥ 5,000", "≥ 50.0"]
    assert "of the method, once for all its seeds" in text
    assert "trials: tokens" not in invoke("leaderboard", write_run(run.parent / "plain"), "--costs").stdout


def test_unequal_budgets_and_seeds_that_were_tuned_differently_are_noted(tmp_path: Path) -> None:
    other = tuning_record(budget={"tokens": 1e6})
    run = write_tuned_run(tmp_path / "run", {"kd": tuning_record(), "gkd": other})
    notes = board_of(run).notes
    expected = "tuned with different budgets (gkd+tuned: 1,000,000 tokens; kd+tuned: 6 trials): not a fair comparison"
    assert f"teacher -> student: {expected}" in notes
    record = run / "cells/teacher__student/kd+tuned/seed2/train/result.json"
    content = json.loads(record.read_text())
    content["tuning"]["chosen"] = 1
    record.write_text(json.dumps(content))
    assert any("kd+tuned: seeds were tuned differently" in note for note in board_of(run).notes)


# --- trials ---


def test_the_trials_are_in_the_order_of_their_ranks_with_the_values_of_the_default(run: Path) -> None:
    text = invoke("leaderboard", run, "--trials").stdout
    table = text[text.index(", kd+tuned: 6 trials") :]
    lines = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in table.splitlines() if line[:2] == "| "]
    assert lines[0][:7] == ["rank", "trial", "divergence", "kd_rate", "training.learning_rate", "steps", "score"]
    assert [line[1] for line in lines[1:7]] == ["2", "1", "0", "4", "3", "5"]
    assert lines[3][2:7] == ["forward_kl", "0.5", "0.002", "100%", "60.0"]
    assert lines[6][6:] == ["–", "–", "–", "–"]
    rows = list(csv.DictReader(io.StringIO(invoke("leaderboard", run, "--trials", "--format", "csv").stdout)))
    assert len(rows) == 12
    assert [row["trial"] for row in rows if row["chosen"] == "True"] == ["2", "2"]
    document = json.loads(invoke("leaderboard", run, "--trials", "--format", "json").stdout)
    assert [trial["trial"] for trial in document["methods"][1]["ranking"]] == [2, 1, 0, 4, 3, 5]


def test_the_order_says_what_the_score_goes_with_also_where_trials_were_dropped(run: Path, tmp_path: Path) -> None:
    kd = board_of(run).tuning[1]
    found = {each.option: each for each in sensitivities(kd)}
    rate, divergence = found["training.learning_rate"], found["divergence"]
    assert (rate.scale, rate.default, rate.n, rate.correlation) == ("log", 0.002, 6, -1.0)
    assert found["kd_rate"].scale == "linear"
    assert found["kd_rate"].ci95 is not None
    assert (divergence.scale, divergence.correlation) == ("values", None)
    assert divergence.groups == [("forward_kl", 2.67, 3), ("reverse_kl", 4.33, 3)]
    # Trials 3 and 4 were dropped after a quarter of the steps, with scores of that quarter.
    halved = tuning_record([*TRIALS[:3], (TRIALS[3][0], 95.0), (TRIALS[4][0], 99.0)], {3: 0.25, 4: 0.25})
    folder = write_tuned_run(tmp_path / "halved", {"kd": halved}, right={"teacher": 38, "kd": 10, "kd+tuned": 30})
    by_place = {each.option: each for each in sensitivities(board_of(folder).tuning[0])}
    assert by_place["training.learning_rate"].correlation == pytest.approx(-1.0)


def test_a_default_that_was_dropped_early_is_said_to_be(tmp_path: Path) -> None:
    halved = tuning_record(TRIALS[:3], {0: 0.25})
    folder = write_tuned_run(tmp_path / "run", {"kd": halved}, right={"teacher": 38, "kd": 10, "kd+tuned": 30})
    assert "60.0 (at 25% of the steps) → 90.0" in invoke("leaderboard", folder, "--tuning").stdout


def test_choices_that_are_far_apart_are_drawn_by_ratio(tmp_path: Path) -> None:
    trials = [({}, 1.0), ({"training.learning_rate": 1.0}, 2.0)]
    tuned = tuning_record(trials, space={"training.learning_rate": "0.002 or 1.0"})
    folder = write_tuned_run(tmp_path / "run", {"kd": tuned}, right={"teacher": 38, "kd": 10, "kd+tuned": 30})
    (found,) = sensitivities(board_of(folder).tuning[0])
    assert (found.scale, found.n, found.ci95) == ("log", 2, None)


def test_a_default_that_the_record_does_not_say_is_left_out(run: Path) -> None:
    for path in run.glob("cells/*/kd+tuned/*/train/result.json"):
        content = json.loads(path.read_text())
        del content["identity"]["parts"]["options"]["kd_rate"]
        path.write_text(json.dumps(content))
    kd = board_of(run).tuning[1]
    found = {each.option: each for each in sensitivities(kd)}
    assert (found["kd_rate"].n, found["training.learning_rate"].n) == (5, 6)
    assert "default" in invoke("leaderboard", run, "--trials").stdout


# --- folders ---


def test_an_export_keeps_tuning_and_is_written_again_byte_for_byte(run: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert invoke("leaderboard", run, "--export", first).exit_code == 0
    assert invoke("leaderboard", first, "--export", second).exit_code == 0
    assert invoke("leaderboard", first, "--write").exit_code == 0
    assert invoke("leaderboard", first, "--check").exit_code == 0
    assert make_leaderboard(read_export(first).records, read_export(first).items) == board_of(run)
    for path in second.rglob("*.*"):
        assert path.read_bytes() == (first / path.relative_to(second)).read_bytes(), path
    assert "what tuning gave" in (first / "README.md").read_text()
    for record in (first / "records").rglob("*.jsonl"):
        record.write_text(record.read_text().replace('"score":90.0', '"score":91.0'))
    assert invoke("leaderboard", first, "--check").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials", "--costs"], "--trials: prints other tables; fix: give it with --format alone"),
        (["--trials"], "holds no tuned method; fix: add `tuning` to the matrix"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = invoke("leaderboard", write_run(tmp_path / "run"), *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


# --- compare ---


def test_comparing_says_what_was_chosen_for_both(run: Path) -> None:
    plain = invoke("compare", "kd", "gkd", "--tuned", "--results", run)
    assert plain.exit_code == 0, plain.stderr
    assert "kd+tuned / gkd+tuned" in plain.stdout
    assert plain.stdout.count("divergence forward_kl, kd_rate 0.7, training.learning_rate 0.0005  90.0") == 2
    assert "fair" not in plain.stderr
    document = json.loads(invoke("compare", "kd+tuned", "gkd+tuned", "--results", run, "--json").stdout)
    assert [each["tuning"]["chosen"] for each in document["settings"]] == [2, 2]
    untuned = invoke("compare", "kd", "sft", "--results", run)
    assert "How the settings were chosen" not in untuned.stdout


def test_comparing_warns_where_one_is_tuned_alone_or_with_another_budget(tmp_path: Path) -> None:
    other = tuning_record(budget={"trials": 24}, halving=True)
    run = write_tuned_run(tmp_path / "run", {"kd": tuning_record(), "gkd": other})
    said = "kd+tuned is tuned and gkd is not: not a fair comparison; fix: compare with gkd+tuned"
    assert said in invoke("compare", "kd+tuned", "gkd", "--results", run).stderr
    budgets = "different budgets (kd+tuned: 6 trials; gkd+tuned: 24 trials, halved): not a fair comparison"
    assert budgets in invoke("compare", "kd", "gkd", "--tuned", "--results", run).stderr
    for b in ("kd", "teacher"):  # what tuning gave, and what is left to gain
        assert "fair" not in invoke("compare", "kd+tuned", b, "--results", run).stderr


def test_two_runs_are_compared_with_what_each_chose(tmp_path: Path) -> None:
    runs = [
        write_tuned_run(tmp_path / "a", {"kd": tuning_record()}),
        write_tuned_run(tmp_path / "b", {"kd": tuning_record(budget={"trials": 3})}),
    ]
    compared = invoke("compare", *runs)
    assert "kd+tuned of A" in compared.stdout
    assert "kd+tuned of B" in compared.stdout
    assert "tuned with different budgets" in compared.stderr
    refused = invoke("compare", *runs, "--tuned")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "--tuned: is for two methods of a run; fix: " in refused.stderr


def test_show_says_what_was_chosen_which_is_not_in_what_it_was_made_from(run: Path) -> None:
    cell = "teacher__student/kd+tuned/seed1"
    folder = OutputFolder(run / "cells" / cell / "train")
    record = (folder.path / "result.json").read_text()
    shutil.rmtree(folder.path)
    folder.begin("train", "a title", Fingerprint.of({"seed": 1}))
    folder.finish(1.0)
    (folder.path / "result.json").write_text(record)
    shown = invoke("show", cell, "--results", run)
    assert "\n  tuning: chosen divergence forward_kl, kd_rate 0.7, " in shown.stdout, shown.output
    assert "trial 2, trials 6, budget 6 trials, validation_score 90, default_validation_score 60\n" in shown.stdout

"""Tuning on the page: what it gave, what the score goes with, the best score against its cost; text stays text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator

from harness.report.document import make_document
from harness.report.page import render
from harness.report.tuning import best_so_far
from harness.results.load import load_results
from harness.tables.tuning_rows import TunedMethod, tuned_methods
from helpers.tuned_runs import TRIALS, tuning_record, write_tuned_run
from helpers.written_runs import write_run

HOSTILE = "<img src=x onerror='window.hacked = 1'></script><script>window.hacked = 1</script>\u202e"


def words(found: Locator) -> list[str]:
    return [" ".join(text.split()) for text in found.all_inner_texts()]


def named(found: Locator) -> list[str]:
    return [str(each.get_attribute("aria-label")) for each in found.all()]


def of_run(folder: Path) -> TunedMethod:
    return tuned_methods(load_results(folder).records)[0][0]


# --- without a browser ---


def test_the_best_score_so_far_rises_with_the_cost_of_all_trials_up_to_it(tmp_path: Path) -> None:
    curve = best_so_far(of_run(write_tuned_run(tmp_path / "run")))
    assert [point["best"] for point in curve] == [60.0, 70.0, 90.0, 90.0, 90.0, 90.0]
    assert [point["tokens"] for point in curve] == [1000, 2000, 3000, 4000, 5000, 5000]  # the last one diverged
    assert [point["score"] for point in curve] == [60.0, 70.0, 90.0, 50.0, 55.0, None]


def test_a_trial_that_was_dropped_early_costs_and_is_never_the_best(tmp_path: Path) -> None:
    halved = tuning_record([*TRIALS[:3], (TRIALS[3][0], 95.0)], {0: 0.25, 3: 0.5})
    run = write_tuned_run(tmp_path / "run", {"kd": halved}, right={"teacher": 38, "kd": 10, "kd+tuned": 30})
    curve = best_so_far(of_run(run))
    assert [(point["best"], point["tokens"]) for point in curve] == [
        *((None, 250), (70.0, 1250), (90.0, 2250), (90.0, 2750)),
    ]


def test_the_document_has_gains_trials_and_costs_and_a_run_without_tuning_none(tmp_path: Path) -> None:
    document, _ = make_document([write_tuned_run(tmp_path / "run")])
    assert [(each["method"], each["chosen"], each["trials"]) for each in document["tuning"]] == [
        ("gkd+tuned", 2, 6),
        ("kd+tuned", 2, 6),
    ]
    assert [(gain["method"], gain["difference"]) for gain in document["tuning_gains"]] == [("gkd", 27.5), ("kd", 50.0)]
    costs = {row["method"]: row.get("trial_tokens") for row in document["costs"]}
    assert costs == {"sft": None, "kd": None, "gkd": None, "kd+tuned": 5000, "gkd+tuned": 5000}
    with_trials = {row["method"]: row["seconds_with_trials"] for row in document["costs"]}
    assert (with_trials["kd"], with_trials["kd+tuned"]) == (12.0, 18.0 + 50.0)
    plain, _ = make_document([write_run(tmp_path / "plain")])
    assert (plain["tuning"], plain["tuning_gains"]) == ([], [])
    assert all("trial_tokens" not in row for row in plain["costs"])


# --- in a browser ---


def test_the_section_shows_gains_choice_curves_and_a_point_for_each_trial(
    tmp_path: Path, open_report: Callable
) -> None:
    opened = open_report(write_tuned_run(tmp_path / "run"))
    section = opened.page.locator("#tuning")
    assert words(section.locator("h3")) == [
        "What tuning gave",
        "Best validation score and what it cost",
        "Sensitivity",
    ]
    assert words(section.locator(".forest tbody th")) == ["kd", "gkd"]
    assert "divergence forward_kl, kd_rate 0.7, training.learning_rate 0.0005" in section.inner_text()
    assert section.locator(".best-so-far path.line").count() == 2
    assert named(section.locator(".best-so-far circle"))[:2] == [
        "gkd, trial 0, the default: 60.0",
        "gkd, trial 2, chosen: 90.0",
    ]
    figures = section.locator("figure")
    assert figures.count() == 3
    assert [figure.locator("circle").count() for figure in figures.all()] == [5, 5, 5]
    assert [figure.locator("path.cross").count() for figure in figures.all()] == [1, 1, 1]
    assert "rank correlation −0.77 (−0.98 to +0.26), n = 6" in words(figures.nth(1))[0]
    assert "forward_kl: mean rank 2.7 (3 trials)" in words(figures.nth(0))[0]
    assert named(figures.nth(1).locator("circle.chosen")) == ["trial 2, chosen: kd_rate 0.7, score 90.0"]
    assert named(figures.nth(1).locator("circle.default")) == ["trial 0, the default: kd_rate 0.5, score 60.0"]
    assert named(figures.nth(1).locator(".cross")) == ["trial 5: kd_rate 0.9, no score"]
    section.get_by_text("All trials as a table").click()
    table = section.locator("details")
    assert words(table.locator("tbody tr"))[0] == (
        "gkd+tuned chosen 1 2 divergence forward_kl, kd_rate 0.7, training.learning_rate 0.0005 100 % 90.0 81.0 1,000 10.0"
    )
    assert table.locator("tbody tr").count() == 12
    assert (opened.complaints, opened.asked_elsewhere()) == ([], [])


def test_a_learning_rate_is_drawn_by_ratio(tmp_path: Path, open_report: Callable) -> None:
    figure = open_report(write_tuned_run(tmp_path / "run")).page.locator("#tuning figure").nth(2)

    def left(value: str) -> float:
        return float(str(figure.locator(f"[aria-label*='learning_rate {value},']").get_attribute("cx")))

    assert left("0.002") - left("0.001") == pytest.approx(left("0.001") - left("0.0005"), rel=1e-6)


def test_another_method_and_another_cost_are_drawn_on_request(tmp_path: Path, open_report: Callable) -> None:
    few = tuning_record(TRIALS[:2])
    page = open_report(write_tuned_run(tmp_path / "run", {"kd": few, "gkd": tuning_record()})).page
    section = page.locator("#tuning")
    assert section.locator("figure").first.locator("circle").count() == 5
    section.get_by_label("Tuned method").select_option(label="kd")
    assert section.locator("figure").first.locator("circle").count() == 2
    section.get_by_label("Cost of trials").select_option("seconds")
    assert "Seconds of all trials so far" in section.locator(".best-so-far svg[role=group]").text_content()
    assert "tuned with different budgets" in page.locator("#head").inner_html()


def test_test_scores_are_drawn_against_training_with_trials(tmp_path: Path, open_report: Callable) -> None:
    page = open_report(write_tuned_run(tmp_path / "run")).page
    costs = page.locator("#costs")
    costs.get_by_label("Cost", exact=True).select_option(label="One training and all trials (s)")
    assert "kd+tuned: 75.0 at 68.0 (One training and all trials (s))" in named(costs.locator("circle"))
    assert "Trials, of all seeds (s)" in costs.locator("thead").inner_text()
    assert "One training" not in costs.locator("thead").inner_text()


def test_trials_that_were_dropped_early_are_pale(tmp_path: Path, open_report: Callable) -> None:
    halved = tuning_record([*TRIALS[:3], (TRIALS[3][0], 95.0)], {0: 0.25, 3: 0.5})
    run = write_tuned_run(tmp_path / "run", {"kd": halved}, right={"teacher": 38, "kd": 10, "kd+tuned": 30})
    figure = open_report(run).page.locator("#tuning figure").nth(1)
    assert named(figure.locator(".early")) == [
        "trial 0, the default: kd_rate 0.5, score 60.0, after 25 % of its steps",
        "trial 3: kd_rate 0.95, score 95.0, after 50 % of its steps",
    ]


def test_hostile_settings_stay_text(tmp_path: Path, open_report: Callable) -> None:
    trials = [({}, 10.0), ({HOSTILE: HOSTILE, "kd_rate": 0.9}, 20.0)]
    tuned = tuning_record(trials, space={HOSTILE: HOSTILE, "kd_rate": HOSTILE}, rule=HOSTILE, budget={HOSTILE: HOSTILE})
    run = write_tuned_run(tmp_path / "run", {"kd": tuned}, right={"teacher": 38, "kd": 10, "kd+tuned": 30})
    for path in run.glob("cells/*/kd+tuned/*/train/result.json"):
        content = json.loads(path.read_text())
        content["tuning"]["trials"][0]["scores"] = {HOSTILE: 5.0}
        path.write_text(json.dumps(content))
    assert "<img" not in render(*make_document([run]))
    opened = open_report(run)
    section = opened.page.locator("#tuning")
    assert "<img src=x" in section.inner_text()
    assert section.locator("img, script").count() == 0
    assert opened.page.evaluate("window.hacked") is None
    assert opened.complaints == []


def test_a_run_without_tuning_has_no_section(tmp_path: Path, open_report: Callable) -> None:
    opened = open_report(write_run(tmp_path / "run"))
    assert opened.page.locator("#tuning").count() == 0
    assert opened.complaints == []


def test_the_section_fits_a_phone_and_names_what_is_not_a_fair_comparison(
    tmp_path: Path, open_report: Callable
) -> None:
    opened = open_report(write_tuned_run(tmp_path / "run"), viewport={"width": 390, "height": 844})
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    assert "that is not a fair comparison" in opened.page.locator("#differences").inner_text()
    assert "kd+tuned tuned" in words(opened.page.locator("#scores tbody th"))

"""`harness rank-agreement` on the records of a run along the number of steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from dskd.errors import InputError
from harness.cli import main
from harness.planning.plan import make_plan
from harness.results.item_scores import Items, Results
from harness.tables.rank_agreement import rank_agreement
from helpers.finished_runs import finish, write_small_matrix

METHODS = ["sft", "kd", "dskd-v2", "gkd"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four methods at three numbers of steps, two seeds, with made-up scores."""
    folder = tmp_path_factory.mktemp("settling")
    pairs = [{"teacher": "small-teacher", "student": "small-student", "methods": METHODS}]
    matrix = write_small_matrix(folder / "matrix.yaml", 2, pairs=pairs, axes={"training.steps": [300, 600, 1200]})
    finish(make_plan(str(matrix), output_dir=folder / "run", allow_code_execution=True))
    return folder / "run"


def test_every_two_numbers_of_steps_are_compared_on_each_task_and_on_their_mean(run: Path) -> None:
    result = CliRunner().invoke(main, ["rank-agreement", str(run), "--json"], catch_exceptions=False)
    document = json.loads(result.stdout)
    rows = document["rows"]
    assert [(row["a"], row["b"]) for row in rows if row["task"] == "mean of tasks"] == [
        ("300", "600"),
        ("300", "1200"),
        ("600", "1200"),
    ]
    assert {row["task"] for row in rows} == {"small_instruct", "small_math", "small_code", "mean of tasks"}
    for row in rows:
        assert sorted(row["order_a"]) == sorted(row["order_b"]) == sorted(METHODS)
        assert row["seeds"] == 2
        assert -1 <= row["ci95"][0] < row["ci95"][1] <= 1
    assert document["notes"] == []


def test_the_table_names_the_best_of_both_sides(run: Path) -> None:
    result = CliRunner().invoke(main, ["rank-agreement", str(run)], catch_exceptions=False)
    header, *rows = result.stdout.splitlines()
    assert header.split()[:5] == ["teacher", "student", "task", "A", "B"]
    assert len(rows) == 12
    assert all(row.split()[-1] in METHODS for row in rows)


def test_an_axis_that_no_name_has_is_a_line_with_what_there_is(run: Path) -> None:
    result = CliRunner().invoke(main, ["rank-agreement", str(run), "--axis", "rate"])
    assert result.exit_code == 2
    assert (
        "no method is named METHOD+rate-VALUE; fix: give another --axis; there are dskd-v2+steps-1200" in result.stderr
    )


def loaded(run: Path) -> Results:
    from harness.results.load import load_results

    return load_results(run)


def test_the_order_is_that_of_the_scores(run: Path) -> None:
    results = loaded(run)
    better = {"sft": 10.0, "kd": 20.0, "gkd": 30.0, "dskd-v2": 40.0}
    items = {}
    for record in results.records:
        if (own := results.items.get(record.cell.key)) is not None:
            base, _, steps = record.cell.method.partition("+steps-")
            value = better.get(base, 0.0) * (-1 if steps == "1200" else 1) + 50
            items[record.cell.key] = Items(own.ids, own.prompts, {n: (value,) * len(own.ids) for n in own.scores})
    rows, _ = rank_agreement(Results(results.records, items, []), "steps")
    taus = {(row.a, row.b): row.tau for row in rows}
    assert taus == {("300", "600"): 1.0, ("300", "1200"): -1.0, ("600", "1200"): -1.0}
    assert {row.order_a for row in rows} == {("dskd-v2", "gkd", "kd", "sft")}
    assert {row.order_b for row in rows if row.b == "1200"} == {("sft", "kd", "gkd", "dskd-v2")}


def test_a_method_that_one_side_lacks_is_not_ranked_and_fewer_than_three_are_an_error(run: Path) -> None:
    results = loaded(run)

    def without(*names: str) -> Results:
        gone = {f"{name}+steps-1200" for name in names}
        items = {
            r.cell.key: results.items[r.cell.key]
            for r in results.records
            if r.cell.key in results.items and r.cell.method not in gone
        }
        return Results(results.records, items, [])

    rows, notes = rank_agreement(without("kd"), "steps")
    assert {len(row.order_a) for row in rows if row.b == "1200"} == {3}
    assert {len(row.order_a) for row in rows if row.b == "600"} == {4}
    assert notes == []
    rows, notes = rank_agreement(without("kd", "gkd"), "steps")
    assert {(row.a, row.b) for row in rows} == {("300", "600")}
    assert len(notes) == 6
    assert notes[0].endswith("300 and 1200: 2 methods have both; a ranking needs 3")
    one = [r for r in results.records if r.cell.method == "kd+steps-300"]
    with pytest.raises(InputError, match="no pair has 3 methods at two values of steps"):
        rank_agreement(
            Results(one, {r.cell.key: results.items[r.cell.key] for r in one if r.cell.key in results.items}, []),
            "steps",
        )
    assert np.isfinite([row.tau for row in rows]).all()

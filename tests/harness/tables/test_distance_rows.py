"""Distances of several seeds, methods and runs as rows, and what is not compared."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harness.results.distances import DistanceRecord, DistanceValue, TextDistances
from harness.runs.identity import Identity
from harness.runs.records import RecordCell
from harness.tables.distances import NAMES, compared_methods, compared_runs, distance_rows
from helpers.written_runs import ENVIRONMENT


def record(method: str, seed: int | None, kl: float | None, **more: Any) -> DistanceRecord:
    """One with a divergence on its own answers, and a length."""
    student = None if method == "teacher" else "student"
    values = {
        "kl_teacher_student": DistanceValue(value=kl, ci95=None, n=10, items=2, reason=None if kl else "not given"),
        "length_ratio": DistanceValue(value=more.pop("length", 2.0), ci95=(1.0, 3.0), n=2, items=2),
    }
    about = {"source": "live", "outputs": "hidden_states", "form": "exact", "space": "vocabulary"} | more
    return DistanceRecord(
        cell=RecordCell(teacher="big", student=student, method=method, seed=seed, task="small_math", task_version="1"),
        teacher="big",
        identity=Identity.of({"method": method, "seed": seed}),
        top_k=10,
        texts={"own_answers": TextDistances(values=values, texts=2, **about)},  # type: ignore[arg-type]
        environment=ENVIRONMENT,
    )


def test_seeds_are_a_mean_with_a_deviation_and_one_seed_keeps_its_interval() -> None:
    several = distance_rows([record("kd", 1, 0.2), record("kd", 2, 0.4), record("sft", 1, 0.5)])
    assert [(row.method, row.text, row.column) for row in several] == [
        ("kd", "own_answers", "small_math"),
        ("sft", "own_answers", "small_math"),
    ]
    cell = several[0].values["kl_teacher_student"]
    assert (cell.value, cell.seeds, cell.n, cell.ci95) == (pytest.approx(0.3), 2, 20, None)
    assert cell.sd == pytest.approx(0.141421, abs=1e-6)
    assert several[1].values["length_ratio"].ci95 == (1.0, 3.0)


def test_a_number_that_a_seed_does_not_have_is_none_of_the_row() -> None:
    (row,) = distance_rows([record("kd", 1, None), record("kd", 2, 0.4)])
    assert (row.values["kl_teacher_student"].value, row.values["kl_teacher_student"].reason) == (None, "not given")


def test_the_length_is_also_that_of_the_teacher_s_answers_where_these_are_known() -> None:
    alone = distance_rows([record("kd", 1, 0.2, length=3.0)])
    assert alone[0].length_by_teacher is None
    rows = distance_rows([record("kd", 1, 0.2, length=3.0), record("teacher", None, None, length=1.5)])
    assert {row.method: row.length_by_teacher for row in rows} == {"teacher": None, "kd": 2.0}


def test_methods_and_runs_are_compared_number_by_number() -> None:
    rows = distance_rows([record("kd", 1, 0.2), record("sft", 1, 0.5, length=1.5)])
    found = {line.number: (line.value_a, line.value_b, line.difference) for line in compared_methods(rows, "kd", "sft")}
    assert found == {"kl_teacher_student": (0.2, 0.5, -0.3), "length_ratio": (2.0, 1.5, 0.5)}
    later = distance_rows([record("kd", 1, 0.1)])
    assert [(line.method, line.difference) for line in compared_runs(rows, later)] == [("kd", 0.1), ("kd", 0.0)]
    assert compared_methods(rows, "kd", "uld") == []


@pytest.mark.parametrize("other", [{"form": "lower_bound", "outputs": "top_k"}, {"space": "shared_vocabulary"}])
def test_a_bound_or_another_space_is_not_compared_with_a_number(other: dict[str, str]) -> None:
    rows = distance_rows([record("kd", 1, 0.2), record("sft", 1, 0.5, **other)])
    assert [line.number for line in compared_methods(rows, "kd", "sft")] == ["length_ratio"]


def test_a_missing_value_needs_a_reason_and_every_number_has_a_title() -> None:
    with pytest.raises(ValidationError, match="needs a reason"):
        DistanceValue(value=None)
    assert len(NAMES) == 10

"""What a table says of test items in training data."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harness.runs.identity import Identity
from harness.runs.records import Counts, DataOverlap, Environment, MetricValue, Record, RecordCell
from harness.tables.contamination_notes import contamination_notes
from harness.tables.leaderboard import make_leaderboard


def entry(of: str = "student", data: str = "own", *, exact: int = 0, answered: int = 0, ngram: int = 0) -> DataOverlap:
    counts = {"exact": exact, "exact_with_answer": answered, "ngram": ngram}
    return DataOverlap(of=of, data=data, items=200, examples=9, n=13, short=0, **counts)


def record(overlap: list[DataOverlap] | None, seed: int = 1) -> Record:
    return Record(
        cell=RecordCell(teacher="big", student="small", method="kd", seed=seed, task="small_math", task_version="1"),
        identity=Identity.of({}),
        status="done",
        n=Counts(total=200, scored=200, invalid=0, truncated=0, harness_error=0),
        headline="numeric",
        metrics={"numeric": MetricValue(value=50.0, n=200)},
        environment=Environment(versions={}, python="3.11", platform="Linux", device="cpu", threads=1),
        overlap=overlap,
    )


def test_what_was_found_is_told_once_for_all_seeds_and_models_of_one_training_set() -> None:
    found = {"exact": 12, "answered": 3, "ngram": 20}
    both = [entry(**found), entry("teacher", **found)]
    assert make_leaderboard([record(both), record(both, seed=2)]).notes == [
        "small_math: 12 of 200 test items occur verbatim (3 with the answer) in, and 20 share 13 consecutive words with "
        "the training data own of the student small, teacher big"
    ]
    assert contamination_notes([record([entry(ngram=4)])]) == [
        "small_math: 4 of 200 test items share 13 consecutive words with the training data own of the student small"
    ]


def test_nothing_found_and_nothing_looked_for_are_no_notes() -> None:
    assert contamination_notes([record([entry()]), record(None)]) == []


def test_what_was_not_measured_is_told_with_its_reason() -> None:
    unknown = DataOverlap(of="teacher", data=None, reason="big is a model folder from elsewhere")
    assert contamination_notes([record([unknown]), record([unknown], seed=2)]) == [
        "test items not compared with training data of the teacher big: big is a model folder from elsewhere"
    ]
    with pytest.raises(ValidationError, match="needs a reason"):
        DataOverlap(of="teacher", data=None)


def test_a_record_from_before_has_no_overlap_and_a_new_one_reads_back() -> None:
    old = record([entry(exact=1, ngram=1)]).model_dump()
    assert Record.model_validate(old).overlap == [entry(exact=1, ngram=1)]
    del old["overlap"]
    assert Record.model_validate(old).overlap is None

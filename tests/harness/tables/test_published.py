"""Other people's numbers: what is kept, and that it stands beside ours without touching it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

import harness.published as published
from dskd.methods import METHODS
from harness import tasks
from harness.published import PublishedTable, published_tables, tables_of
from harness.runs.identity import Identity
from harness.runs.records import Cost, Counts, Environment, MetricValue, Record, RecordCell
from harness.tables.leaderboard import make_leaderboard
from harness.tables.render import FORMATS
from harness.tables.rows import Leaderboard

PAIR = ("qwen1.5-1.8b", "gpt2")
# What the sources average over, and their sets that no task here is.
FOREIGN_COLUMNS = {"average", "mathematics", "code", "MetaMath", "MATH", "ORCA"}


@pytest.mark.parametrize(
    "table", published_tables(), ids=lambda table: f"{table.source[:8]}:{table.teacher}:{table.student}"
)
def test_names_are_ours_or_the_sources_and_averages_are_those_of_their_row(table: PublishedTable) -> None:
    assert table.source
    assert table.read_in
    assert table.protocol
    assert set(table.columns) <= {*tasks.names(), *FOREIGN_COLUMNS}
    # A name without a capital or a space is meant to be one of ours; "untrained student" has a space.
    assert {name for name in table.values if name == name.lower() and " " not in name} <= {"teacher", *METHODS}
    for method, values in table.values.items():
        assert all(0 <= value <= 100 for value in values)
        if "average" in table.columns and len(values) > 1:
            assert values[-1] == pytest.approx(sum(values[:-1]) / len(values[:-1]), abs=0.011), method


def test_tables_of_a_pair_come_from_every_source_that_has_it() -> None:
    assert len({table.source for table in tables_of([PAIR])}) >= 4
    assert tables_of([("gpt2", "qwen1.5-1.8b")]) == []


def test_a_file_with_a_missing_value_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"teacher": "t", "student": "s", "columns": ["dolly", "vicuna"], "values": {"sft": [1.0]}}
    source = {"source": "x", "read_in": "y", "metric": "m", "protocol": "p", "tables": [table]}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(source))
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    published_tables.cache_clear()
    try:
        with pytest.raises(ValidationError, match="sft: 1 values for 2 columns"):
            published_tables()
    finally:
        published_tables.cache_clear()


def record(method: str, value: float) -> Record:
    student = None if method == "teacher" else PAIR[1]
    return Record(
        cell=RecordCell(
            teacher=PAIR[0],
            student=student,
            method=method,
            seed=1 if student else None,
            task="dolly",
            task_version="1",
            protocol=None,
        ),
        identity=Identity.of({}),
        status="done",
        n=Counts(total=500, scored=500, invalid=0, truncated=0, harness_error=0),
        headline="rouge_l",
        metrics={"rouge_l": MetricValue(value=value, stderr=1.0, ci95=(value - 2, value + 2), n=500, reason=None)},
        cost=Cost(),
        environment=Environment(
            versions={}, python="3.11", platform="Linux", device="cpu", threads=1, engine="transformers"
        ),
    )


@pytest.fixture
def boards() -> tuple[Leaderboard, Leaderboard]:
    """Without, and with what others report."""
    records = [record("teacher", 30.0), record("sft", 20.0), record("dskd-v1-cma", 22.5)]
    with_published = make_leaderboard(records)
    with_published.published = tables_of(with_published.pairs)
    return make_leaderboard(records), with_published


def test_published_columns_stand_in_grids_of_their_own(boards: tuple[Leaderboard, Leaderboard]) -> None:
    alone, both = (FORMATS["md"](board, False) for board in boards)
    own_table = alone.split("\n\n")[1]
    assert own_table in both  # ours is as it was: its ranking has no stranger in it
    theirs = both.split("published by DWA-KD, arXiv 2602.21669\n\n")[1].split("\n\n")
    header = [name.strip() for name in theirs[0].splitlines()[0].strip("|").split("|")]
    assert header == [
        "method",
        "dolly, published",
        "dolly, ours",
        "selfinst, published",
        "vicuna, published",
        "sinst, published",
        "average, published",
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in theirs[0].splitlines()[2:]]
    cells = {line[0]: line[1:3] for line in lines}
    assert cells["teacher"] == ["28.23", "30.00 (rouge_l, greedy)"]
    assert cells["dskd-v1-cma"] == ["24.26", "22.50 (rouge_l, greedy)"]
    assert cells["DWA-KD"] == ["24.29", "–"]
    assert "| 9.30 " in theirs[0]  # with the digits of the source
    assert theirs[1].startswith("Published: Rouge-L, read in the paper. Instruction following on Dolly")


def test_every_format_shows_source_and_protocol(boards: tuple[Leaderboard, Leaderboard]) -> None:
    alone, both = boards
    for form, render in FORMATS.items():
        assert "2602.21669" not in render(alone, False), form
        assert "2602.21669" in render(both, False), form
        assert "S-NI with 1,694 items" in render(both, False), form
    without, document = (json.loads(FORMATS["json"](board, False)) for board in boards)
    assert document["rows"] == without["rows"]
    assert PublishedTable(**document["published"][0]) == both.published[0]
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(FORMATS["csv"](both, False)))}
    assert rows["dskd-v1-cma"]["value"] == "22.5"
    assert rows["dskd-v1-cma"]["published"].startswith("24.26 (Rouge-L; DWA-KD, arXiv 2602.21669;")
    assert rows["teacher"]["published"].startswith("28.23 (Rouge-L; DWA-KD")

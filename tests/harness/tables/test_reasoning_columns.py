"""What reasoning cost stands beside the scores of the columns in which a model reasons, and nowhere else."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.protocols import PROTOCOLS
from harness.report.document import make_document
from harness.results.export import read_export, write_export
from harness.results.item_scores import Results
from harness.runs.identity import Identity
from harness.runs.records import Cost, Counts, Environment, MetricValue, ReasoningUse, Record, RecordCell
from harness.runs.store import write_text_atomic
from harness.tables.leaderboard import make_leaderboard
from harness.tables.render import FORMATS, grids
from harness.tables.rows import REASONING_FIELDS

ENVIRONMENT = Environment(versions={}, python="3.11", platform="Linux", device="cpu", threads=1, engine="vllm")
USE: dict[str, Any] = {
    "samples": 8, "never_ended": 2, "never_ended_share": 20.0, "answers_cut": 1, "reasoning_cut": 3, "reasoning_cut_share": 30.0,
    "reasoning_closed": 1, "answers_cut_share": 10.0, "tokens": 300.0,
    "reasoning_tokens": 250.0, "answer_tokens": 50.0, "tokens_per_solved": 600.0,
}  # fmt: skip

CUT = {"reasoning_cut": 1, "reasoning_cut_share": 10.0, "reasoning_closed": 0}


def record(method: str, value: float, spent: int, seed: int | None = 1, task: str = "gsm8k", **use: Any) -> Record:
    """Of ten samples; it reasons where `use` says something."""
    student = None if method == "teacher" else "student"
    return Record(
        cell=RecordCell(
            teacher="teacher",
            student=student,
            method=method,
            seed=seed if student else None,
            task=task,
            task_version="1",
        ),
        identity=Identity.of({}),
        status="done",
        n=Counts(total=10, scored=10, invalid=0, truncated=0, harness_error=0),
        headline="numeric",
        metrics={"numeric": MetricValue(value=value, ci95=(0, 100), ci_method="wilson", n=10)},
        cost=Cost(tokens=spent),
        environment=ENVIRONMENT,
        reasoning=ReasoningUse(**(USE | use)) if use else None,
    )


@pytest.fixture
def records() -> list[Record]:
    return [
        record("teacher", 50, 3000, never_ended=2),
        record("kd", 20, 1000, tokens=100.0, tokens_per_solved=500.0, reasoning_tokens=60.0, never_ended=0),
        record("kd", 0, 2000, 2, tokens=200.0, tokens_per_solved=None, reasoning_tokens=180.0, never_ended=4, **CUT),
        record("sft", 40, 200),
        record("sft", 30, 100, task="dolly"),
        record("kd", 30, 100, task="dolly"),
    ]


def test_tokens_of_a_column_are_of_all_its_models_over_all_seeds(records: list[Record]) -> None:
    board = make_leaderboard(records)
    rows = {row.method: row for row in board.reasoning}
    assert {row.task for row in board.reasoning} == {"gsm8k"}
    assert set(rows) == {"teacher", "kd", "sft"}
    kd = rows["kd"]
    # 3,000 tokens for 20 samples, 2 of them right, of which the second seed has none.
    assert (kd.tokens, kd.tokens_per_solved, kd.reasoning_tokens) == (150.0, 1500.0, 120.0)
    assert (kd.never_ended, kd.never_ended_share) == (4, 20.0)
    assert (rows["sft"].tokens, rows["sft"].tokens_per_solved) == (20.0, 50.0)
    assert rows["sft"].never_ended_share is None
    assert rows["teacher"].tokens_per_solved == 600.0
    assert (kd.reasoning_cut_share, kd.reasoning_closed, kd.answers_cut_share) == (20.0, 1, 10.0)
    older = record("kd", 0, 900, 3, reasoning_cut=None, reasoning_cut_share=None, reasoning_closed=None)
    (kd,) = (row for row in make_leaderboard([*records, older]).reasoning if row.method == "kd")
    assert (kd.reasoning_cut_share, kd.answers_cut) == (None, 3)
    assert "reasoning_cut" not in older.model_dump_json()


def test_the_columns_stand_beside_the_score(records: list[Record]) -> None:
    board = make_leaderboard(records)
    grid = grids(board, costs=False)[0]
    assert [title.split(" (")[0] for title in grid.header] == [
        *("method", "seeds", "dolly", "gsm8k"),
        *("tokens per item", "tokens per solved item", "reasoning never ended", "reasoning cut off", "answers cut off"),
    ]
    by_method = {line[0]: line for line in grid.lines}
    assert by_method["kd"][4:] == ["150.0", "1,500.0", "20.0", "20.0", "10.0"]
    assert by_method["sft"][4:] == ["20.0", "50.0", "–", "–", "–"]
    assert all(len(line) == len(grid.header) for line in grid.lines)
    assert "Reasoning that never ended is no answer" in FORMATS["md"](board, False)


def test_every_format_has_them_and_a_board_without_reasoning_none(records: list[Record]) -> None:
    board, without = make_leaderboard(records), make_leaderboard([each for each in records if not each.reasoning])
    (first, *_) = [
        row for row in csv.DictReader(io.StringIO(FORMATS["csv"](board, False))) if row["method"] == "teacher"
    ]
    assert [first[name] for name in ("tokens", "tokens_per_solved", "never_ended_share")] == ["300.0", "600.0", "20.0"]
    assert len(json.loads(FORMATS["json"](board, False))["reasoning"]) == 3
    for name, render in FORMATS.items():
        assert "never" in render(board, False), name
        assert not {"reasoning", "never_ended", "solved"} & set(render(without, False).replace('"', " ").split()), name
    assert "reasoning" not in json.loads(FORMATS["json"](without, False))
    header = FORMATS["csv"](without, False).splitlines()[0].split(",")
    assert not set(REASONING_FIELDS) & set(header)


def test_every_record_has_its_tokens_in_json_that_is_printed_and_no_table_has(
    records: list[Record], tmp_path: Path
) -> None:
    drawn = record("kd", 30, 5000, 3, task="dolly")
    assert drawn.cell.protocol is not None
    several = drawn.cell.model_copy(update={"protocol": PROTOCOLS["pass@1-sampling"]})
    continuous = MetricValue(value=30, ci95=(0, 100), ci_method="bootstrap", n=10)
    of_several = {
        "cell": several,
        "cost": Cost(tokens=5000, tokens_per_solved=250.0),
        "metrics": {"numeric": continuous},
    }
    records += [drawn.model_copy(update=of_several), drawn.model_copy(update={"metrics": {"numeric": continuous}})]
    write_export(Results(records, {}, []), tmp_path)
    printed = CliRunner().invoke(main, ["leaderboard", str(tmp_path), "--format", "json"])
    rows = {(row["task"], row["method"], row["protocol"]): row for row in json.loads(printed.stdout)["tokens"]}
    assert len(rows) == len(json.loads(printed.stdout)["rows"]) == 6
    assert rows["dolly", "sft", "greedy"] == {
        "teacher": "teacher", "student": "student", "method": "sft", "task": "dolly", "protocol": "greedy",
        "solved": "item", "tokens": 10.0, "tokens_per_solved": 33.33, "tokens_per_solved_reason": None, "truncated_share": 0.0,
    }  # fmt: skip
    sampled = rows["dolly", "kd", "pass@1-sampling"]
    assert (sampled["solved"], sampled["tokens_per_solved"]) == ("sample", 250.0)
    assert rows["gsm8k", "teacher", "greedy"]["tokens_per_solved"] == 600.0
    unknown = rows["dolly", "kd", "greedy"]
    assert (unknown["tokens"], unknown["tokens_per_solved"]) == (255.0, None)
    assert unknown["tokens_per_solved_reason"].startswith("it is not known which samples are right")
    assert CliRunner().invoke(main, ["leaderboard", str(tmp_path), "--write"]).exit_code == 0
    assert "tokens" not in json.loads((tmp_path / "leaderboard.json").read_text())


def test_one_task_under_several_limits_has_a_column_for_each_with_what_it_cost() -> None:
    greedy = PROTOCOLS["greedy"]
    budgets = [greedy.with_reasoning(64), greedy.with_reasoning(512), greedy.with_reasoning(512, "close")]
    made = []
    for protocol, value, share in zip(budgets, (10, 30, 50), (60.0, 20.0, 20.0), strict=True):
        one = record("kd", value, 1000, reasoning_cut_share=share, never_ended_share=0.0)
        made.append(one.model_copy(update={"cell": one.cell.model_copy(update={"protocol": protocol})}))
    board = make_leaderboard([*made, record("sft", 20, 100)])
    grid = grids(board, costs=False)[0]
    titles = [title for title in grid.header if title.startswith("gsm8k")]
    assert titles == [
        "gsm8k (numeric, n=10)",
        "gsm8k [greedy, max_reasoning_tokens=64] (numeric, n=10)",
        "gsm8k [greedy, max_reasoning_tokens=512] (numeric, n=10)",
        "gsm8k [greedy, max_reasoning_tokens=512, reasoning_end=close] (numeric, n=10)",
    ]
    (line,) = (line for line in grid.lines if line[0] == "kd")
    cut = [cell for title, cell in zip(grid.header, line, strict=True) if title == "reasoning cut off (%)"]
    assert cut == ["60.0", "20.0", "20.0"]
    assert board.tasks == [title.removesuffix(" (numeric, n=10)") for title in titles]


def test_an_export_keeps_what_reasoning_cost_and_older_ones_are_read(records: list[Record], tmp_path: Path) -> None:
    write_export(Results(records, {}, []), tmp_path / "export")
    read = read_export(tmp_path / "export")
    assert read.problems == []
    assert make_leaderboard(read.records) == make_leaderboard(records)
    lines = [json.loads(line) for path in (tmp_path / "export").glob("records/*/*.jsonl") for line in path.open()]
    assert sum("reasoning" in line["record"] for line in lines) == 3


def test_the_report_has_reasoning_apart_from_the_completion(records: list[Record], tmp_path: Path) -> None:
    folder = tmp_path / "run" / "cells" / "teacher" / "teacher" / "eval" / "gsm8k@v1"
    write_text_atomic(folder / "result.json", records[0].model_dump_json())
    shared = {"prompt": "Q", "gold": "4", "scores": {"numeric": 100.0}, "outcome": "correct", "generated_tokens": 9}
    thought = {"reasoning": "Two </think> and two.", "reasoning_ended": True, "reasoning_tokens": 7}
    samples = [
        {"id": "0", "output": "4", **shared, **thought},
        {"id": "1", "output": "", **shared, **thought, "reasoning_ended": False},
        {"id": "2", "output": "4", **shared},
    ]
    write_text_atomic(folder / "samples.jsonl", "".join(f"{json.dumps(sample)}\n" for sample in samples))
    document, browsed = make_document([tmp_path / "run"])
    assert document["scores"][0]["reasoning"]["never_ended_share"] == 20.0
    first, second, third = (item["completions"][0] for item in browsed["items"])
    assert (first["output"]["text"], first["reasoning"]["text"]) == ("4", "Two </think> and two.")
    assert first["reasoning_tokens"] == 7
    assert "reasoning never ended" in second["flaws"]
    assert not {"reasoning", "reasoning_tokens", "flaws"} & set(third)

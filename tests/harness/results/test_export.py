"""Records that are committed, the tables written beside them, and comparisons on the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.runs.identity import Identity
from harness.runs.records import Counts, Environment, MetricValue, Record, RecordCell

SHARES = {"sft": 0.3, "kd": 0.6, "dskd": 0.62}


def evaluation(root: Path, method: str, seed: int | None, share: float, items: int = 80, prompt: str = "") -> None:
    random = np.random.default_rng([len(method), seed or 0])
    values = 100.0 * (random.random(items) < share)
    student = None if seed is None else "student"
    record = Record(
        cell=RecordCell(teacher="teacher", student=student, method=method, seed=seed, task="math", task_version="1"),
        identity=Identity.of({"model": {"seed": seed, "method": method}}),
        status="done",
        n=Counts(total=items, scored=items, invalid=0, truncated=0, harness_error=0),
        headline="numeric",
        metrics={"numeric": MetricValue(value=float(values.mean()), ci95=(0.0, 100.0), n=items)},
        environment=Environment(versions={}, python="3.11", platform="Linux", device="cpu", threads=1, engine="vllm"),
    )
    folder = root / "cells" / f"{method}{seed}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(record.model_dump_json())
    lines = [
        {"id": f"q/{number}", "prompt": f"{prompt}{number}", "scores": {"numeric": value}}
        for number, value in enumerate(values)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    evaluation(root, "teacher", None, 0.97)
    for method, share in SHARES.items():
        for seed in (1, 2, 3):
            evaluation(root, method, seed, share)
    return root


def call(*arguments: object, code: int = 0) -> tuple[str, str]:
    found = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert found.exit_code == code, found.output
    return found.stdout, found.stderr


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_an_export_gives_the_same_table_and_the_same_bytes_wherever_it_is_made(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run, moved)
    call("leaderboard", run, "--export", tmp_path / "one")
    call("leaderboard", moved, "--export", tmp_path / "two")
    call("leaderboard", tmp_path / "one", "--export", tmp_path / "three")
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "three")
    assert len(list((tmp_path / "one" / "items").iterdir())) == 1
    for form in ("md", "json", "csv", "tex", "html"):
        assert (
            call("leaderboard", run, "--format", form)[0] == call("leaderboard", tmp_path / "one", "--format", form)[0]
        )


def test_the_table_marks_the_best_and_who_is_tied_with_it(run: Path) -> None:
    rows = {row["method"]: row for row in json.loads(call("leaderboard", run, "--format", "json")[0])["rows"]}
    (best,) = (name for name, row in rows.items() if row["best"])
    (other,) = {"kd", "dskd"} - {best}
    assert (rows[other]["tied"], rows["sft"]["tied"], rows[best]["tied"]) == (True, False, None)
    assert rows["sft"]["p_best"] < 0.05 <= rows[other]["p_best"]
    gap = 100 * (rows["kd"]["value"] - rows["sft"]["value"]) / (rows["teacher"]["value"] - rows["sft"]["value"])
    assert rows["kd"]["gap_closed"] == pytest.approx(gap, abs=0.1)
    text = call("leaderboard", run)[0]
    assert any(line.startswith(f"| {best}") and "**" in line for line in text.splitlines())
    assert any(line.startswith(f"| {other}") and "†" in line for line in text.splitlines())
    assert "min. detectable effect" in text
    latex = call("leaderboard", run, "--format", "tex")[0]
    assert r"\textbf{" in latex
    assert r"$\dagger$" in latex


def test_a_gap_that_is_not_resolved_has_a_reason_and_no_share(tmp_path: Path) -> None:
    evaluation(tmp_path, "teacher", None, 0.4)
    evaluation(tmp_path, "sft", 1, 0.4)
    evaluation(tmp_path, "kd", 1, 0.4)
    row = next(
        r for r in json.loads(call("leaderboard", tmp_path, "--format", "json")[0])["rows"] if r["method"] == "kd"
    )
    assert row["gap_closed"] is None
    assert "the teacher is not significantly different from sft" in row["gap_reason"]


def test_written_tables_are_checked_to_the_line(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    call("leaderboard", run, "--write", code=2)
    call("leaderboard", run, "--export", folder)
    assert "README.md: is missing; fix: --write" in call("leaderboard", folder, "--check", code=1)[1]
    call("leaderboard", folder, "--write")
    before = files(folder)
    call("leaderboard", folder, "--write")
    assert files(folder) == before
    call("leaderboard", folder, "--check")
    csv = folder / "leaderboard.csv"
    csv.write_text(csv.read_text().replace("teacher", "Teacher", 1))
    assert "leaderboard.csv:1: 'Teacher," in call("leaderboard", folder, "--check", code=1)[1]


def test_an_export_never_overwrites_what_is_not_one(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "not empty and not an export" in call("leaderboard", run, "--export", tmp_path, code=2)[1]
    assert files(tmp_path) == {"mine.txt": b"mine"}


def test_a_broken_line_of_an_export_is_named(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "records"
    call("leaderboard", run, "--export", folder)
    call("leaderboard", folder, "--write")
    (broken,) = folder.glob("records/*/kd.jsonl")
    broken.write_text(broken.read_text().replace('"seed":2', '"seed":"two"', 1))
    assert "kd.jsonl:2: " in call("leaderboard", folder, "--check", code=1)[1]
    (folder / "records.json").write_text("{}")
    assert "fix: export again" in call("leaderboard", folder, code=2)[1]


def test_two_methods_and_two_runs_are_compared(run: Path, tmp_path: Path) -> None:
    document = json.loads(call("compare", "kd", "sft", "--results", run, "--json")[0])
    (line,) = document["comparisons"]
    assert (line["method"], line["verdict"], line["n_items"], line["n_seeds"]) == ("kd / sft", "A higher", 80, 3)
    assert line["value_a"] - line["value_b"] == pytest.approx(line["difference"], abs=1e-3)
    assert "B higher" in call("compare", "sft", "teacher", "--results", run)[0]
    other = tmp_path / "other"
    evaluation(other, "kd", 1, 0.6, prompt="Please: ")
    evaluation(other, "sft", 1, 0.3)
    out, err = call("compare", run, other)
    assert "not significantly different" in out
    assert "80 with different prompts" in err
    assert "2 evaluations are in A only" in err
    # Equal lines are adjusted together.
    lines = json.loads(call("compare", run, run, "--json")[0])["comparisons"]
    assert [line["p_holm"] for line in lines] == [1.0] * 4


def test_what_cannot_be_compared_is_an_error_that_helps(run: Path) -> None:
    assert (
        "no method 'kdd' with samples; fix: use one of dskd, kd, sft"
        in call("compare", "kdd", "sft", "--results", run, code=2)[1]
    )
    assert "no such folder" in call("compare", "kd", "sft", code=2)[1]
    assert "no key 'tusk'" in call("compare", "kd", "sft", "--results", run, "--only", "tusk=math", code=2)[1]


def test_published_numbers_of_no_pair_here_are_said_to_be_unknown(run: Path) -> None:
    out, err = call("leaderboard", run, "--published")
    assert out == call("leaderboard", run)[0]
    assert "no published results for these pairs" in err
    assert "--published: only for printing" in call("leaderboard", run, "--published", "--check", code=2)[1]


def test_records_of_another_run_are_added_and_what_changed_is_said(run: Path, tmp_path: Path) -> None:
    whole, parts, first, rest = (tmp_path / name for name in ("whole", "parts", "first", "rest"))
    call("leaderboard", run, "--export", whole)
    shutil.copytree(run, first)
    (rest / "cells").mkdir(parents=True)
    for folder in list(first.glob("cells/dskd*")):
        folder.rename(rest / "cells" / folder.name)
    call("leaderboard", first, "--export", parts)
    assert files(parts) != files(whole)
    _, said = call("leaderboard", rest, "--export", parts, "--add")
    assert files(parts) == files(whole)
    assert "changed" not in said
    # One cell again, with other scores: the new ones are kept.
    evaluation(tmp_path / "again", "kd", 2, 0.1)
    _, said = call("leaderboard", tmp_path / "again", "--export", parts, "--add")
    lines = [line for line in said.splitlines() if line.startswith("changed: ")]
    assert len(lines) == 1
    assert lines[0].startswith("changed: teacher -> student, kd, seed 2, math: ")
    rows = [json.loads(line) for line in (parts / "records/teacher__student/kd.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    assert lines[0].endswith(f"{rows[1]['record']['metrics']['numeric']['value']} now")


def test_nothing_is_added_to_what_is_no_export(run: Path, tmp_path: Path) -> None:
    for options in (["--add"], ["--export", tmp_path / "new", "--add"]):
        _, said = call("leaderboard", run, *options, code=2)
        assert "--add: needs an export to add to" in said
    assert not (tmp_path / "new").exists()

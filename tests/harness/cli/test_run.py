"""The command line from a matrix to a table, with real jobs on models that are as small as they can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.runs.job_state import JobState
from harness.runs.records import read_record
from harness.scheduling.event_log import EventReader

Harness = Callable[..., subprocess.CompletedProcess[str]]
Finished = tuple[Path, subprocess.CompletedProcess[str]]

CELL = "teacher__cross/dskd-v2-eta/seed1"


@pytest.fixture(scope="module")
def finished(tiny_pair: dict[str, Any], harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that was done once, in an empty folder, as a user would."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_pair))
    return folder, harness("run", "--matrix", "tiny.yaml", cwd=folder)


def files_under(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_run_prints_the_table_and_says_where_things_lie(
    finished: Finished,
) -> None:
    folder, run = finished
    assert run.returncode == 0, run.stderr
    assert "### teacher -> cross" in run.stdout
    rows = [line.split("|")[1].strip() for line in run.stdout.splitlines() if line.startswith("| ")]
    assert rows[:3] == ["method", "teacher", "dskd-v2-eta"]
    for word in ("Records:", "Logs:", "Students:", "Costs:"):
        assert word in run.stdout
    assert "[9/9] done" in run.stderr
    assert "\x1b" not in run.stdout + run.stderr
    root = folder / "runs" / "tiny"
    assert (root / "cells" / CELL / "train/model/config.json").is_file()
    assert (root / "cells" / CELL / "train/model/projectors/projectors.safetensors").is_file()


def test_the_records_say_what_was_measured_and_where(finished: Finished) -> None:
    root = finished[0] / "runs" / "tiny" / "cells"
    training = read_record(root / CELL / "train/result.json")
    assert training.cost.train_seconds is not None
    assert training.cost.teacher_seconds is not None
    assert 0 < training.cost.teacher_seconds < training.cost.train_seconds
    assert training.cost.tokens is not None
    assert training.cost.tokens > 0
    assert training.cost.peak_memory is not None
    assert training.cost.peak_memory > 100 * 2**20
    evaluation = read_record(root / CELL / "eval/small_math@v2/result.json")
    assert evaluation.cell.task == "small_math"
    assert evaluation.n is not None
    assert evaluation.n.total == 2
    assert evaluation.environment.engine == "transformers"
    assert evaluation.environment.versions["torch"]
    assert evaluation.identity.parts["model"] == training.identity.parts
    samples = (root / CELL / "eval/small_math@v2/samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in samples] == ["0", "1"]
    teacher = read_record(root / "teacher/teacher/eval/small_math@v2/result.json")
    assert (teacher.cell.student, teacher.cell.method, teacher.cell.seed) == (None, "teacher", None)
    for path in root.rglob("eval/*/"):
        assert {entry.name for entry in path.iterdir()} == {"manifest.json", "result.json", "samples.jsonl", "log.txt"}


def test_a_run_leaves_what_it_was_watched_by(finished: Finished, harness: Harness) -> None:
    folder, root = finished[0], finished[0] / "runs" / "tiny"
    told = harness("status", "--json", cwd=folder)
    assert told.returncode == 0, told.stderr
    status = json.loads(told.stdout)
    assert status["cells"] == {"done": 2, "running": 0, "waiting": 0, "failed": 0, "skipped": 0}
    assert (status["name"], status["lives"], status["closed"]) == ("tiny", False, True)
    state = JobState.read(root, f"train:{CELL}")
    assert state is not None
    assert (state.state, state.stage, state.done, state.total) == ("done", "training", 2, 2)
    assert state.metrics["loss"] > 0
    assert state.metrics["learning_rate"] > 0
    events = list(EventReader(root).new())
    assert [event["event"] for event in events if event["event"] in {"opened", "closed"}] == ["opened", "closed"]
    assert sum(event["event"] == "ended" for event in events) == 9
    assert "2 of 2 done" in (root / "status.html").read_text()
    log = harness("logs", CELL.rpartition("teacher__")[2], "--lines", "1000", cwd=folder)
    assert log.returncode == 0, log.stderr
    assert "small_math" in log.stdout


def test_the_same_run_again_trains_nothing_and_imports_no_torch(finished: Finished) -> None:
    folder, first = finished
    before = files_under(folder)
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "harness.cli", "run", "--matrix", "tiny.yaml"],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert run.returncode == 0
    assert run.stdout == first.stdout
    assert files_under(folder) == before
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time")}
    assert "harness.planning.plan" in imported
    assert not imported & {"torch", "transformers", "vllm", "lm_eval", "datasets"}


def test_plan_and_dry_run_write_nothing_and_name_what_changed(
    finished: Finished, tiny_pair: dict[str, Any], harness: Harness
) -> None:
    folder, _ = finished
    changed = deepcopy(tiny_pair)
    changed["methods"] = {"dskd-v2-eta": {"temperature": 3}}
    (folder / "changed.yaml").write_text(yaml.safe_dump(changed))
    before = files_under(folder)
    plan = harness("plan", "--matrix", "changed.yaml", "--json", cwd=folder)
    document = json.loads(plan.stdout)
    assert document["counts"] == {"done": 2, "missing": 0, "stale": 3, "failed": 0}
    (train,) = (job for job in document["jobs"] if job["kind"] == "train")
    assert (train["action"], train["reason"]) == ("run", "options.temperature: 2 -> 3")
    dry = harness("run", "--matrix", "changed.yaml", "--dry-run", cwd=folder)
    assert dry.returncode == 0
    assert "options.temperature: 2 -> 3" in dry.stdout
    assert files_under(folder) == before


def test_leaderboard_and_check(finished: Finished, harness: Harness, tmp_path: Path) -> None:
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(finished[0] / "runs" / "tiny" / "cells", root / "cells")
    shutil.copy(finished[0] / "runs" / "tiny" / "run.json", root)
    good = harness("leaderboard", "--results", root, "--format", "json", "--check")
    assert good.returncode == 0, good.stderr
    assert len(json.loads(good.stdout)["rows"]) == 4
    record = root / "cells" / CELL / "eval/small_math@v2/result.json"
    torn = record.read_text()[:100]
    record.write_text(torn)
    (root / "cells/teacher/teacher/eval/small_instruct@v1/result.json").unlink()
    bad = harness("leaderboard", "--results", root, "--check")
    assert bad.returncode == 1
    assert f"problem: {record}" in bad.stderr
    assert "small_instruct@v1/result.json: is missing" in bad.stderr


def test_show_describes_a_cell(finished: Finished, harness: Harness) -> None:
    folder, _ = finished
    shown = harness("show", CELL, "--json", cwd=folder)
    parts = json.loads(shown.stdout)["parts"]
    assert [part["title"] for part in parts] == ["train", "evaluate small_instruct@v1", "evaluate small_math@v2"]
    assert parts[0]["made_from"]["method"] == "dskd-v2-eta"
    assert "numeric" in parts[2]["scores"]
    unknown = harness("show", "teacher__cros/dskd-v2-eta/seed1", cwd=folder)
    assert unknown.returncode == 2
    assert f"did you mean '{CELL}'" in unknown.stderr


@pytest.mark.slow  # a whole run for one line
def test_examples_that_are_too_long_are_counted_where_the_user_looks(
    tiny: dict[str, Any], harness: Harness, tmp_path: Path
) -> None:
    rows = [{"prompt": "Say it.", "output": "well " * length} for length in (2, 3, 400)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny["data"] = {"student": {"file": "data.jsonl"}}
    tiny["models"]["teacher"].pop("training")
    tiny["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["sft"]}]
    tiny |= {"tasks": {}}
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(tiny))
    run = harness("run", "--matrix", "m.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (
        "left out 1 of 3 examples (1 longer than max_length for the student, 1 longer than max_length for the teacher)"
        in run.stderr
    )


def test_a_matrix_that_asks_for_less_promises_less(finished: Finished, harness: Harness) -> None:
    folder, _ = finished
    content = yaml.safe_load((folder / "tiny.yaml").read_text())
    content["tasks"].pop("small_instruct")
    (folder / "less.yaml").write_text(yaml.safe_dump(content))
    before = json.loads((folder / "runs/tiny/run.json").read_text())["records"]
    assert harness("run", "--matrix", "less.yaml", cwd=folder).returncode == 0
    after = json.loads((folder / "runs/tiny/run.json").read_text())["records"]
    assert {Path(name).name for name in set(before) - set(after)} == {"small_instruct@v1"}
    assert harness("run", "--matrix", "tiny.yaml", cwd=folder).returncode == 0
    assert json.loads((folder / "runs/tiny/run.json").read_text())["records"] == before


def test_a_failed_cell_is_listed_with_its_reason_and_log_and_the_table_is_printed_all_the_same(
    finished: Finished, harness: Harness
) -> None:
    folder, _ = finished
    # A folder of the user's own stands where the second seed's training is to go: that job fails, and nothing else does.
    content = yaml.safe_load((folder / "tiny.yaml").read_text())
    content["seeds"], content["tasks"] = [1, 2], {"small_math": content["tasks"]["small_math"]}
    (folder / "seeds.yaml").write_text(yaml.safe_dump(content))
    taken = folder / "runs/tiny/cells/teacher__cross/dskd-v2-eta/seed2/train/notes.txt"
    taken.parent.mkdir(parents=True)
    taken.write_text("mine")
    run = harness("run", "--matrix", "seeds.yaml", cwd=folder)
    assert run.returncode == 1, run.stderr
    assert "failed: train teacher__cross/dskd-v2-eta/seed2: " in run.stderr
    assert "notes.txt" in run.stderr
    assert f"log: {Path('runs/tiny/cells/teacher__cross/dskd-v2-eta/seed2/train/log.txt')}" in run.stderr
    assert "\n        | error: " in run.stderr  # the last lines of its log
    assert "not run: evaluate teacher__cross/dskd-v2-eta/seed2: needs 'train teacher__cross" in run.stderr
    assert "| dskd-v2-eta | 1 " in run.stdout
    assert taken.read_text() == "mine"


@pytest.mark.slow  # a training and an evaluation
def test_train_trains_one_student_and_finds_it_done_the_second_time(
    finished: Finished, harness: Harness, tmp_path: Path
) -> None:
    (teacher,) = (
        path.parent / "model"
        for path in (finished[0] / "runs/tiny/artifacts/models").glob("*/manifest.json")
        if json.loads(path.read_text())["title"] == "model teacher"
    )
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {k}:", "output": f" it is {k}."}) + "\n" for k in range(6)))
    arguments = ["train", "--teacher", teacher, "--student", teacher, "--data", data, "--method", "kd"]
    arguments += ["--option", "temperature=1.5", "--steps", "2", "--batch-size", "2", "--output", tmp_path / "out"]
    run = harness(*arguments)
    assert run.returncode == 0, run.stderr
    student = tmp_path / "out/train/model"
    assert f"Student: {student}" in run.stdout
    assert (student / "tokenizer.json").is_file()
    record = read_record(tmp_path / "out/train/result.json")
    assert record.identity.parts["options"]["temperature"] == 1.5
    again = harness(*arguments)
    assert again.returncode == 0
    assert again.stderr == ""
    other = harness(*arguments, "--seed", "7")
    assert other.returncode == 2
    assert "holds another training; fix: give another folder, or --overwrite" in other.stderr
    assert os.listdir(tmp_path / "out/train")  # noqa: PTH208 - what was there is still there

"""A matrix over who writes the text, from its file to the students: by two methods, with one vocabulary and with two."""

from __future__ import annotations

import copy
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from harness import tasks
from helpers.killed_runs import start

pytestmark = pytest.mark.slow  # a whole run

Harness = Callable[..., subprocess.CompletedProcess[str]]
Row = dict[str, Any]

EXAMPLES, SAMPLES, SHARE = 16, 3, 0.5
TEACHER = {"max_new_tokens": 48}
RIGHT = {"teacher": {"samples": SAMPLES, "keep": "shortest_right", **TEACHER}}
MIX = {"teacher": {"share": SHARE, **TEACHER}, "data": 1 - SHARE}


@pytest.fixture(scope="module")
def folder(tiny_pair: Row, tmp_path_factory: pytest.TempPathFactory, harness: Harness) -> Path:
    """The folder of the matrix, which has been run once. The teacher knows its few examples by heart, the wrong ones too."""
    folder = tmp_path_factory.mktemp("texts")
    content = copy.deepcopy(tiny_pair)
    content["data"]["student"]["limit"] = EXAMPLES
    learned = {"data": "student", "steps": 150, "batch_size": 8, "max_length": 128, "learning_rate": 5e-3}
    for model in content["models"].values():
        model["config"] = {**model["config"], "hidden_size": 64, "intermediate_size": 128}
    content["models"]["teacher"]["training"] = [learned]
    content["pairs"] = [
        {"teacher": "teacher", "student": "same", "methods": ["kd", "right", "mix"]},
        {"teacher": "teacher", "student": "cross", "methods": ["uld"]},
    ]
    content["axes"] = {
        "text": {"data": {"text": "data"}, "teacher": {"text": {"teacher": TEACHER}}, "student": {"text": "student"}}
    }
    content["methods"] = {
        "right": {"method": "sft", "axes": [], "text": RIGHT},
        "mix": {"method": "kd", "axes": [], "text": MIX},
    }
    content["training"] = {
        "data": "student",
        "steps": 2,
        "batch_size": 4,
        "max_length": 200,
        "rollouts": {"max_new_tokens": 6},
    }
    content |= {"seeds": [1], "tasks": {}}
    content["evaluation"]["max_batch_size"] = 4
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    run = harness("run", "--matrix", "m.yaml", "--output-dir", "run", "--allow-code-execution", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    (folder / "stderr.txt").write_text(run.stderr)
    return folder


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def data_of(folder: Path) -> list[Row]:
    (path,) = folder.glob("run/artifacts/world/*/world/train/student.jsonl")
    return lines(path)[:EXAMPLES]


def artifact(folder: Path, kind: str, **identity: Any) -> Path:
    """The folder of the only artifact of a kind, with these parts in its identity."""
    found = []
    for path in folder.glob("run/artifacts/answers/*/manifest.json"):
        manifest = json.loads(path.read_text())
        parts = manifest["identity"]["parts"]
        if manifest["kind"] == kind and all(parts.get(key) == value for key, value in identity.items()):
            found.append(path.parent)
    (only,) = found
    return only


def record(folder: Path, cell: str) -> Row:
    return json.loads((folder / "run" / "cells" / f"teacher__{cell}" / "seed1" / "train" / "result.json").read_text())


def test_every_student_says_whose_text_it_was_trained_on(folder: Path) -> None:
    told = {cell: record(folder, cell).get("text") for cell in ("same/kd+data", "same/kd+teacher", "same/kd+student")}
    told |= {
        cell: record(folder, cell).get("text") for cell in ("cross/uld+data", "cross/uld+teacher", "cross/uld+student")
    }
    left = json.loads((artifact(folder, "teacher-responses", samples=None) / "manifest.json").read_text())["report"]
    of_teacher = {
        "data": 0.0,
        "teacher": 1.0,
        "student": 0.0,
        "prompts": EXAMPLES,
        "without_text": left["without_text"],
    }
    for student, method in (("same", "kd"), ("cross", "uld")):
        assert told[f"{student}/{method}+data"] is None
        assert told[f"{student}/{method}+teacher"] == of_teacher
        assert told[f"{student}/{method}+student"] == {"data": 0.0, "teacher": 0.0, "student": 1.0}


def test_the_student_wrote_its_text_where_it_was_to_and_nowhere_else(folder: Path) -> None:
    wrote = {path.parents[1].parent.parent.name for path in folder.glob("run/cells/*/*/seed1/train/rollouts/0.jsonl")}
    assert wrote == {"kd+student", "uld+student"}


def test_of_the_teacher_s_samples_the_shortest_right_one_of_each_prompt_is_kept(folder: Path) -> None:
    """Against each response scored by itself."""
    answered: dict[str, list[str]] = {}
    for row in lines(artifact(folder, "teacher-responses", samples=SAMPLES) / "answers.jsonl"):
        answered.setdefault(row["prompt"], []).append(row["output"])
    expected, without, right = [], 0, 0
    for row in data_of(folder):
        task = tasks.load(row["task"])
        document = task.training_document(row)
        assert document is not None
        found = []
        for output in answered.get(row["prompt"], []):
            score = task.score(document, output, allow_code_execution=True)
            found += [output] if score.scores[task.metrics[0].name] == 100.0 else []
        right += len(found)
        without += not found
        best = None
        for output in found:
            best = output if best is None or len(output.encode()) < len(best.encode()) else best
        if best is not None:
            expected.append({"prompt": row["prompt"], "output": best})
    kept = artifact(folder, "kept-responses")
    assert lines(kept / "answers.jsonl") == expected
    report = json.loads((kept / "manifest.json").read_text())["report"]
    assert (report["right"], report["without_text"], report["kept"]) == (right, without, len(expected))
    # The world is such that there is something to reject, and something to keep.
    assert 0 < len(expected) < EXAMPLES
    assert 0 < right < sum(map(len, answered.values()))
    text = record(folder, "same/right")["text"]
    assert (text["prompts"], text["without_text"]) == (EXAMPLES, without)
    assert f"{without} of {EXAMPLES} prompts have no text of the teacher's" in (folder / "stderr.txt").read_text()


def test_in_a_mixture_each_example_s_own_numbers_decide_who_wrote_it(folder: Path) -> None:
    answered = {
        row["prompt"]: row["output"]
        for row in lines(artifact(folder, "teacher-responses", samples=None) / "answers.jsonl")
    }
    expected, of_teacher = [], 0
    for number, row in enumerate(data_of(folder)):
        first, _ = np.random.default_rng(np.random.SeedSequence([0x7E87, number])).random(2)
        writes = first < SHARE and row["prompt"] in answered
        of_teacher += writes
        expected.append({"prompt": row["prompt"], "output": answered[row["prompt"]] if writes else row["output"]})
    mixture = artifact(folder, "text-mixture")
    assert lines(mixture / "examples.jsonl") == expected
    assert 0 < of_teacher < EXAMPLES
    assert json.loads((mixture / "manifest.json").read_text())["report"]["of_teacher"] == of_teacher


@pytest.mark.slow  # a run again
def test_sampling_that_is_killed_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    """Killed with SIGKILL, harness and job, as soon as some of the responses are on the disk."""
    made = artifact(folder, "teacher-responses", samples=SAMPLES)
    whole = (made / "answers.jsonl").read_bytes()
    root = tmp_path / "run"
    shutil.copytree(folder / "run", root)
    shutil.copy(folder / "m.yaml", tmp_path)
    again = root / made.relative_to(folder / "run")
    shutil.rmtree(again)
    for path in root.glob("artifacts/answers/*/manifest.json"):
        if json.loads(path.read_text())["kind"] == "kept-responses":
            shutil.rmtree(path.parent)
    shutil.rmtree(root / "artifacts" / "data")  # what was made of them
    shutil.rmtree(root / "cells" / "teacher__same" / "right")
    command = ["run", "--matrix", "m.yaml", "--output-dir", "run", "--allow-code-execution", "--only", "method=right"]
    process = start(command, tmp_path)
    cache, deadline = again / "blocks" / "answers.cache", time.monotonic() + 120
    while not (cache.is_file() and cache.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, (tmp_path / "printed.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    for each in [*workers, psutil.Process(process.pid)]:
        each.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(workers, timeout=20)
    assert not (again / "answers.jsonl").exists()
    stored = cache.read_bytes().count(b"\n")
    assert 2 <= stored < EXAMPLES * SAMPLES / 4
    assert start(command, tmp_path).wait(240) == 0, (tmp_path / "printed.txt").read_text()
    assert (again / "answers.jsonl").read_bytes() == whole

"""The command line with models by name, as a user has them: each command a process, the hub on 127.0.0.1."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.runs.records import read_record
from helpers.hub_server import HubServer
from helpers.tiny_models import write_gpt2

TEXT = "Say 1234567890: it is, and no more of it. Question: How many? Answer: 12"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """A hub with a teacher, a student and a gated model."""
    folder = tmp_path_factory.mktemp("served")
    with HubServer(folder / "hub") as hub:
        hub.add_model("org/teacher", write_gpt2(folder / "teacher", TEXT, n_layer=2))
        hub.add_model("org/student", write_gpt2(folder / "student", TEXT), revision="v1")
        hub.add_model("org/gated", folder / "student", gated=True)
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run, with data."""
    folder = tmp_path_factory.mktemp("commands")
    rows = [{"prompt": f"Say {k}:", "output": f" it is {k}."} for k in range(8)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"instruction": f"Say {k}.", "output": f"It is {k}."} for k in range(8)]
    (folder / "instructions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "text.jsonl").write_text(json.dumps({"text": TEXT}) + "\n")
    (folder / "prompts.jsonl").write_text(json.dumps({"id": "a", "prompt": "Say 1:"}) + "\n")
    return folder


def _harness(hub: HubServer, folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | hub.env | {"NO_COLOR": "1", "DSKD_HUB_COMMITS": ""} | settings
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)


TRAIN = [
    *("train", "--teacher", "org/teacher", "--student", "org/student@v1", "--data", "data.jsonl", "--method", "kd"),
    *("--steps", "2", "--batch-size", "2"),
]


@pytest.mark.slow
def test_a_student_is_trained_from_two_names_and_again_offline(served: HubServer, folder: Path) -> None:
    first = _harness(served, folder, *TRAIN, "--output", "out")
    assert first.returncode == 0, first.stderr
    sizes = re.findall(r"^notice: downloading (\d+) files? of org/(\w+) \([\d.]+ .B\) into", first.stderr, re.MULTILINE)
    assert {name for _, name in sizes} == {"teacher", "student"}
    assert "\r" not in first.stderr, "no bars where nobody watches"
    record = read_record(folder / "out/train/result.json")
    commit = served.model("org/teacher").branches["main"]
    assert record.identity.parts["teacher"]["files"] == {"hub": "org/teacher", "commit": commit}
    assert (record.cell.teacher, record.cell.student) == ("teacher", "student")
    assert (folder / "out/train/model/model.safetensors").is_file()
    locked = json.loads((folder / "out/harness.lock.json").read_text())
    assert locked["models"]["org/teacher@main"] == commit
    # Everything is in the cache: another training needs no network.
    asked = len(served.requests)
    other = _harness(served, folder, *TRAIN, "--output", "other", "--seed", "1", HF_HUB_OFFLINE="1")
    assert other.returncode == 0, other.stderr
    assert len(served.requests) == asked
    parts = [read_record(folder / name / "train/result.json").identity.parts for name in ("out", "other")]
    assert parts[0] | {"seed": 1} == parts[1]


@pytest.mark.slow  # tests/dskd/test_hub.py and test_hub_models.py have the parts
def test_every_command_that_takes_a_model_takes_a_name(served: HubServer, folder: Path) -> None:
    evaluated = _harness(
        served, folder, "evaluate", "--model", "org/student@v1", "--task", "small_math", "--limit", "2",
        "--max-new-tokens", "4", "--engine", "transformers", "--output-dir", "scores",
    )  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    assert (folder / "scores/harness.lock.json").is_file()
    assert [path.name for path in (folder / "scores/cells").iterdir()] == ["student"]
    generated = _harness(
        served, folder, "generate", "--model", "org/teacher", "--prompts", "prompts.jsonl", "--max-new-tokens", "4",
        "--engine", "transformers", "--output", "answers.jsonl",
    )  # fmt: skip
    assert generated.returncode == 0, generated.stderr
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 1
    aligned = _harness(
        served, folder, "align", "--teacher", "org/teacher", "--student", "org/student@v1", "--text", "text.jsonl", "--json"
    )  # fmt: skip
    assert aligned.returncode == 0, aligned.stderr
    assert json.loads(aligned.stdout)["aligned_share"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["generate", "--model", "org/gated", "--prompts", "prompts.jsonl", "--output", "x.jsonl"],
         r"error: --model: org/gated@[0-9a-f]{40}: this model is gated: .*`hf auth login`"),
        (["align", "--teacher", "org/none", "--student", "org/student@v1", "--text", "text.jsonl"],
         r"error: --teacher: org/none@main: no model of this name"),
        (["parity", "--model", "org/student", "--task", "small_math"],
         r"error: --model: org/student@main: this model has no such revision"),
        (["evaluate", "--model", "org/none", "--task", "small_math", "--output-dir", "none"],
         r"error: --model org/none: org/none@main: no model of this name"),
        ([*TRAIN, "--teacher", "org/gated", "--output", "none"],
         r"error: --teacher: org/gated@[0-9a-f]{40}: this model is gated"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_one_line(served: HubServer, folder: Path, arguments: list[str], line: str) -> None:
    done = _harness(served, folder, *arguments)
    assert done.returncode == 2
    *notices, error = done.stderr.splitlines()
    assert all(notice.startswith("notice: ") for notice in notices), done.stderr
    assert re.match(line, error), error
    assert not (folder / "none").exists()


@pytest.mark.slow  # tests/dskd/test_hub.py breaks one off as well
def test_a_download_that_breaks_off_leaves_nothing_behind_but_the_lock(served: HubServer, folder: Path) -> None:
    served.add_model("org/far", served.folder.parent / "teacher")
    served.cut_off("org/far", "model.safetensors", 5_000)
    broken = _harness(served, folder, *TRAIN, "--teacher", "org/far", "--output", "far")
    assert broken.returncode == 2
    assert re.search(r"^error: org/far@[0-9a-f]{40}: its download broke off", broken.stderr, re.MULTILINE), (
        broken.stderr
    )
    assert "Traceback" not in broken.stderr
    assert [path.name for path in (folder / "far").iterdir()] == ["harness.lock.json"]


@pytest.mark.slow  # a whole run; the training above has its parts
def test_a_matrix_of_names_runs_to_a_table(served: HubServer, folder: Path, tiny: dict[str, Any]) -> None:
    """With a template, so that the models are copies of folders of links into the cache."""
    models = {
        "teacher": {"hub": "org/teacher", "template": "alpaca"},
        "student": {"hub": "org/student", "revision": "v1", "template": "alpaca"},
    }
    pairs = [{"teacher": "teacher", "student": "student", "methods": ["sft"]}]
    data = {"student": {"file": "instructions.jsonl"}}
    tasks = {"small_instruct": {"limit": 2, "max_new_tokens": 4}}
    content = tiny | {"models": models, "pairs": pairs, "data": data, "tasks": tasks}
    (folder / "matrix.yaml").write_text(yaml.safe_dump(content))
    done = _harness(served, folder, "run", "--matrix", "matrix.yaml", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "### teacher -> student" in done.stdout
    copies = [*(folder / "runs/tiny/artifacts/models").glob("*/model")]
    assert len(copies) == 2
    for copy in copies:
        assert (copy / "model.safetensors").is_file()
        assert not any(path.is_symlink() for path in copy.iterdir())

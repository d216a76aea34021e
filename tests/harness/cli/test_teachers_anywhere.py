"""One matrix, three places of one teacher: in the training, in a cache that vLLM wrote, and behind an address. One table."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.vllm_servers import VllmServer, running

Harness = Callable[..., subprocess.CompletedProcess[str]]

METHOD = "dskd-v2-eta"


@pytest.fixture(scope="module")
def folder(harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anywhere")
    made = harness("init-example", "example", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[VllmServer]:
    server = VllmServer(folder / "example/models/teacher", folder / "server.txt")
    with running(server):
        yield server


def _matrix(folder: Path, address: str) -> None:
    live, kept = {"kind": "live"}, {"kind": "hidden_states"}
    content: dict[str, Any] = {
        "schema_version": 1,
        "name": "anywhere",
        "data": {"examples": {"file": "example/train/student.jsonl", "limit": 40}},
        "models": {
            "teacher": {"path": "example/models/teacher"},
            "far": {"served": address, "model": "teacher", "head": "example/models/teacher", "dtype": "float32"},
            "student": {"path": "example/models/student"},
        },
        "pairs": [
            {"teacher": "teacher", "student": "student", "methods": ["live", "cached"]},
            {"teacher": "far", "student": "student", "methods": ["live", "cached"]},
        ],
        "methods": {
            "live": {"method": METHOD, "teacher_outputs": live},
            "cached": {"method": METHOD, "teacher_outputs": kept},
        },
        "training": {"data": "examples", "steps": 6, "batch_size": 8, "max_length": 128, "logging_steps": 1},
        "teacher_cache": {"engine": "vllm"},
        "seeds": [1],
        "tasks": {"small_instruct": {"limit": 4}},
        "evaluation": {"engine": "transformers", "score_teachers": False},
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(content))


@pytest.mark.slow
def test_a_matrix_of_live_cached_and_served_teachers_gives_one_table(
    folder: Path, server: VllmServer, harness: Harness
) -> None:
    _matrix(folder, server.url)
    planned = harness("plan", "--matrix", "m.yaml", cwd=folder)
    assert f"Teacher far has to be reachable at {server.url} for 2 jobs." in planned.stdout
    run = harness("run", "--matrix", "m.yaml", cwd=folder)
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    trained = {}
    for path in (folder / "runs/anywhere/cells").rglob("train/result.json"):
        record = json.loads(path.read_text())
        report = json.loads(path.with_name("manifest.json").read_text())["report"]
        trained[record["cell"]["teacher"], record["cell"]["method"]] = report
    assert trained.keys() == {(teacher, method) for teacher in ("teacher", "far") for method in ("live", "cached")}
    expected = trained["teacher", "live"]["losses"]["loss"]
    for report in trained.values():
        assert report["losses"]["loss"] == pytest.approx(expected, abs=1e-5)
    probed = trained["far", "live"]["probe"]
    assert not [check for check in probed["checks"] if check["result"] == "refused"]
    assert "passed" in {check["result"] for check in probed["checks"] if check["name"] == "local copy"}
    table = harness("leaderboard", "runs/anywhere", cwd=folder).stdout
    assert all(name in table for name in ("far", "teacher", "live", "cached"))
    again = harness("plan", "--matrix", "m.yaml", cwd=folder)
    assert "reachable" not in again.stdout


def test_a_plan_says_which_teacher_has_to_be_reachable(folder: Path, harness: Harness) -> None:
    _matrix(folder, "http://127.0.0.1:9")
    planned = harness(
        "plan", "--matrix", "m.yaml", "--output-dir", "new", "--only", "teacher=far", "--json", cwd=folder
    )
    assert json.loads(planned.stdout)["reachable"] == {"far": {"http://127.0.0.1:9": 2}}

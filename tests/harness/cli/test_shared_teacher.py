"""One teacher for many students: what it says is computed once, found damaged, computed again; and a teacher that does not load."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.runs.records import Record, read_record
from helpers.llama_folders import change_weights

Harness = Callable[..., subprocess.CompletedProcess[str]]

EXAMPLES = 12
METHODS = ["sft", "kd", "dskd-v1", "dskd-v2"]
SEEDS = [1, 2]


@pytest.fixture(scope="module")
def folder(tiny_pair: dict[str, Any], harness: Harness, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four methods with two seeds each on one teacher, run once in an empty folder; several passes over the examples."""
    folder = tmp_path_factory.mktemp("shared")
    rows = [{"prompt": f"Say {k}:", "output": f" it is {k}, and no more."} for k in range(EXAMPLES)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = tiny_pair
    content["data"] = {"student": {"file": "data.jsonl"}}
    content["models"]["teacher"].pop("training")
    content["models"]["teacher"]["seed"] = 7
    content["pairs"] = [{"teacher": "teacher", "student": "same", "methods": METHODS}]
    content["training"] = {"data": "student", "epochs": 2, "batch_size": 6, "max_length": 64, "logging_steps": 1}
    content |= {"seeds": SEEDS, "tasks": {}, "evaluation": {"score_teachers": False}}
    (folder / "m.yaml").write_text(yaml.safe_dump(content))
    run = harness("run", "--matrix", "m.yaml", cwd=folder)
    assert run.returncode == 0, run.stderr
    return folder


def records(folder: Path) -> dict[tuple[str, int | None], Record]:
    found = [read_record(path) for path in (folder / "runs/tiny/cells").rglob("train/result.json")]
    return {(record.cell.method, record.cell.seed): record for record in found}


def losses(folder: Path, method: str, seed: int) -> dict[str, float]:
    path = folder / f"runs/tiny/cells/teacher__same/{method}/seed{seed}/train/manifest.json"
    return json.loads(path.read_text())["report"]["losses"]


def rerun(folder: Path, harness: Harness, name: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    content = yaml.safe_load((folder / "m.yaml").read_text()) | changes
    (folder / name).write_text(yaml.safe_dump(content))
    return harness("run", "--matrix", name, "--only", "method=kd", "--only", "seed=1", cwd=folder)


def test_four_methods_and_two_seeds_ask_the_teacher_once_for_each_example(folder: Path) -> None:
    costs = {key: record.cost for key, record in records(folder).items()}
    assert set(costs) == {(method, seed) for method in METHODS for seed in SEEDS}
    once = {cost.signal_examples for (method, _), cost in costs.items() if method != "sft"}
    assert sum(cost.teacher_examples or 0 for cost in costs.values()) + sum(filter(None, once)) == EXAMPLES
    assert once == {EXAMPLES}
    assert all(cost.teacher_examples == 0 for cost in costs.values())
    assert {(cost.signal_seconds, cost.signal_examples) for (m, _), cost in costs.items() if m == "sft"} == {
        (None, None)
    }
    assert len(list((folder / "runs/tiny/artifacts/signals").iterdir())) == 1


def test_the_leaderboard_shows_what_the_trainings_and_the_shared_signal_took(folder: Path, harness: Harness) -> None:
    shown = harness("leaderboard", "--results", folder / "runs/tiny", "--costs", "--format", "json")
    costs = {row["method"]: row for row in json.loads(shown.stdout)["costs"]}
    assert set(costs) == set(METHODS)
    for method, row in costs.items():
        assert row["seeds"] == len(SEEDS)
        assert row["train_seconds"] > 0
        assert row["tokens_per_second"] > 0
        assert row["peak_memory"] > 100 * 2**20
        assert (row["signal_seconds"] is None) == (method == "sft")
    signals = {row["signal_seconds"] for row in costs.values()} - {None}
    assert len(signals) == 1


@pytest.mark.slow
def test_a_live_teacher_is_asked_in_every_epoch_and_the_losses_are_the_same(folder: Path, harness: Harness) -> None:
    cached = losses(folder, "kd", 1)
    run = rerun(folder, harness, "live.yaml", teacher_signal={"kind": "live"})
    assert run.returncode == 0, run.stderr
    cost = records(folder)["kd", 1].cost
    assert (cost.teacher_examples, cost.signal_examples, cost.signal_seconds) == (2 * EXAMPLES, None, None)
    live = losses(folder, "kd", 1)
    assert live == pytest.approx(cached, rel=1e-5)


@pytest.mark.parametrize("file", ["shards/00000.safetensors", pytest.param("signal.json", marks=pytest.mark.slow)])
def test_a_damaged_signal_is_computed_again_before_it_is_learned_from(
    folder: Path, harness: Harness, file: str
) -> None:
    before = losses(folder, "kd", 2)
    (damaged,) = (folder / "runs/tiny/artifacts/signals").glob(f"*/signal/{file}")
    content = bytearray(damaged.read_bytes())
    content[-9] ^= 1
    damaged.write_bytes(content)
    shutil.rmtree(folder / "runs/tiny/cells/teacher__same/kd/seed2")
    run = harness("run", "--matrix", "m.yaml", "--only", "method=kd", "--only", "seed=2", cwd=folder)
    assert run.returncode == 0, run.stderr
    log = (folder / "runs/tiny/cells/teacher__same/kd/seed2/train/log.txt").read_text()
    assert "computing what is damaged again" in log
    assert losses(folder, "kd", 2) == before
    cost = records(folder)["kd", 2].cost
    assert cost.teacher_examples == EXAMPLES


@pytest.mark.slow
def test_a_teacher_that_does_not_load_fails_its_own_cells_with_a_reason(folder: Path, harness: Harness) -> None:
    models = (folder / "runs/tiny/artifacts/models").glob("*/manifest.json")
    (teacher,) = (path.parent for path in models if json.loads(path.read_text())["title"] == "model teacher")
    shutil.copytree(teacher / "model", folder / "broken")
    # What the headers of its weights do not show before the run.
    change_weights(
        folder / "broken", lambda weights: {name: weights[name] for name in weights if name != "model.norm.weight"}
    )
    content = yaml.safe_load((folder / "m.yaml").read_text())
    content["models"]["broken"] = {"path": "broken"}
    content["pairs"] = [{"teacher": "broken", "student": "same", "methods": ["sft", "kd"]}]
    content["seeds"] = [1]
    (folder / "broken.yaml").write_text(yaml.safe_dump(content))
    run = harness("run", "--matrix", "broken.yaml", cwd=folder)
    assert run.returncode == 1
    (failed,) = (line for line in run.stderr.splitlines() if line.startswith("failed: "))
    assert failed.startswith(
        f"failed: teacher cache of broken on student: {folder / 'broken'}: 1 weights of LlamaForCausalLM are missing "
    )
    assert "; fix: " in failed
    assert (
        "not run: train broken__same/kd/seed1: needs 'teacher cache of broken on student', which failed" in run.stderr
    )
    assert (folder / "runs/tiny/cells/broken__same/sft/seed1/train/model").is_dir()

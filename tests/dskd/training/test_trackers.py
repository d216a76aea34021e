"""Real trackers, without a network: a training's tags, its steps also over a stop, and its student's scores are in one run.

Each needs its package: `pip install tensorboard wandb mlflow-skinny trackio`.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import Stopped
from dskd.training.trackers import log_scores
from helpers.training_runs import train_tiny

TAGS = {"name": "kd-seed3", "run": "quick", "method": "kd", "seed": "3", "teacher": "big", "hash": "0123abcd"}


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))


def _train(world: Path, output: Path, tracker: str) -> None:
    """A training of six steps that stops after three and goes on."""
    looked = iter(range(100))
    common: dict[str, Any] = {"trackers": [tracker], "tags": TAGS}
    with pytest.raises(Stopped):
        train_tiny(world, output, "kd", **common, stop=lambda: next(looked) >= 4)
    train_tiny(world, output, "kd", **common)
    log_scores(tracker, output, TAGS, {"small_math/accuracy": 41.5}, step=6)


def test_tensorboard(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _train(world, tmp_path / "run", "tensorboard")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [(event.step, event.value) for event in events.Scalars("scores/small_math/accuracy")] == [(6, 41.5)]
    assert {f"{key}/text_summary" for key in TAGS} <= set(events.Tags()["tensors"])


def test_wandb(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    _train(world, tmp_path / "run", "wandb")
    runs = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(runs) == 3  # two starts and the scores
    assert {path.name.rpartition("-")[2] for path in runs} == {TAGS["hash"]}
    stored = b"".join(path.read_bytes() for folder in runs for path in folder.glob("*.wandb"))
    for said in (b"method:kd", b"seed:3", b"teacher:big", b"scores/small_math/accuracy"):
        assert said in stored


def test_mlflow(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    import mlflow

    _train(world, tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient()
    (experiment,) = [each for each in client.search_experiments() if each.name == "quick"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "kd-seed3"
    assert TAGS.items() <= run.data.tags.items()
    assert run.data.metrics["scores/small_math/accuracy"] == 41.5
    assert [each.step for each in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3, 4, 5, 6]
    assert run.info.status == "FINISHED"


def test_trackio(world: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    _train(world, tmp_path / "run", "trackio")
    (database,) = (tmp_path / "trackio").glob("quick*.db")
    rows = sqlite3.connect(database).execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {"kd-seed3"}
    logged = [json.loads(metrics) for _, metrics in rows]
    assert [row["scores/small_math/accuracy"] for row in logged if "scores/small_math/accuracy" in row] == [41.5]
    assert len([row for row in logged if "train/loss" in row]) == 6

"""What a training tells while it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_state import JobState, StateWriter
from harness.steps.base_model import training_progress


def test_losses_and_speeds_go_into_the_state_of_the_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = StateWriter(tmp_path, "train:a", 1)
    channel = ProgressChannel(writer)
    channel.started()
    report = training_progress(JobContext(tmp_path, "train", [], channel), "training")
    for step in range(1, 5):
        report({"step": step, "steps": 4, "tokens": 1000 * step})
        time.sleep(0.3)
    report({"step": 4, "steps": 4, "loss": 2.5, "learning_rate": 1e-3, "epoch": 1.0})
    channel.ended("done")
    state = JobState.read(tmp_path, "train:a")
    assert state is not None
    assert (state.stage, state.done, state.total) == ("training", 4, 4)
    assert state.metrics["loss"] == 2.5
    assert state.metrics["learning_rate"] == 1e-3
    assert 0 < state.metrics["steps_per_second"] <= 1 / 0.3
    assert state.metrics["tokens_per_second"] == pytest.approx(1000 * state.metrics["steps_per_second"], rel=0.5)
    assert "training: step 4 of 4: loss 2.5, learning_rate 0.001" in capsys.readouterr().out

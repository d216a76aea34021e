"""A training that is asked to stop writes a checkpoint at that step, and goes on from it to the same weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from dskd.errors import Stopped
from dskd.training.checkpoints import RunFolder
from dskd.training.launch import launch_training
from dskd.training.run import TrainingOptions, train
from helpers.training_runs import assert_same_weights, logged, saved_weights

OPTIONS: dict[str, Any] = {"batch_size": 4, "learning_rate": 1e-2, "logging_steps": 3}


def _train(world: Path, output: Path, **more: Any) -> Any:
    return train(
        data=world / "cross-data",
        student=world / "cross",
        teacher=world / "teacher",
        method="dskd-v2-eta",
        options=TrainingOptions(steps=8, **OPTIONS),
        seed=3,
        output=output,
        **more,
    )


BEFORE_STEPS = 2  # looks for a request before the first step


def _after(calls: int) -> Any:
    """A request that comes once somebody has looked for it so often."""
    looked = iter(range(10**6))
    return lambda: next(looked) >= calls


@pytest.mark.parametrize("step", [1, 5, 7])
def test_a_training_stops_at_any_step_and_goes_on_from_there(dropping: Path, tmp_path: Path, step: int) -> None:
    _train(dropping, tmp_path / "whole")
    with pytest.raises(
        Stopped, match=f"^stopped at step {step} after its checkpoint, because it was asked to$"
    ) as caught:
        _train(dropping, tmp_path / "stopped", stop=_after(BEFORE_STEPS + step - 1))
    assert caught.value.step == step
    assert not (tmp_path / "stopped" / "model").exists()
    report = _train(dropping, tmp_path / "stopped")
    assert report.resumed_from_step == step
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "stopped"), rtol=0, atol=0)
    assert logged(tmp_path / "whole") == logged(tmp_path / "stopped")


def test_a_request_before_the_first_step_and_one_at_the_last(world: Path, tmp_path: Path) -> None:
    for calls in range(BEFORE_STEPS):
        with pytest.raises(Stopped, match=r"^stopped before its first step"):
            _train(world, tmp_path / "early", stop=_after(calls))
    assert _train(world, tmp_path / "late", stop=_after(BEFORE_STEPS + 7)).steps == 8  # nothing is left to stop


on_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="where there is no GPU")


def _request(world: Path, output: Path, steps: int) -> dict[str, Any]:
    return {
        "data": str(world / "cross-data"),
        "student": str(world / "cross"),
        "teacher": str(world / "teacher"),
        "method": "dskd-v2-eta",
        "seed": 3,
        "options": {**OPTIONS, "batch_size": 2, "steps": steps},
        "output": str(output),
    }


@pytest.mark.slow  # two processes
@on_cpu
def test_two_processes_stop_at_one_step_when_the_caller_is_asked(world: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    request = _request(world, tmp_path, 100_000)
    with pytest.raises(Stopped, match=r"^stopped at step") as caught:
        launch_training(
            request, processes=2, on_progress=lambda event: steps.append(event["step"]), stop=lambda: len(steps) > 3
        )
    checkpoint = RunFolder(tmp_path).last_good_checkpoint(2)
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{caught.value.step}"
    assert sorted(path.name for path in checkpoint.glob("loop_state*")) == ["loop_state_0.pth", "loop_state_1.pth"]


LAUNCH = """
    import json, sys
    from dskd.errors import Stopped
    from dskd.processes import StopRequest
    from dskd.training.launch import launch_training
    stop = StopRequest()
    try:
        launch_training(json.loads(sys.argv[1]), processes=2, stop=stop, on_progress=lambda event: print(event["step"], flush=True))
    except Stopped as stopped:
        print("stopped", stopped.step, flush=True)
"""


@on_cpu
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_cluster_that_signals_every_process_gets_a_checkpoint(
    world: Path, tmp_path: Path, number: signal.Signals
) -> None:
    request = json.dumps(_request(world, tmp_path, 100_000))
    launcher = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LAUNCH), request], stdout=subprocess.PIPE, text=True
    )
    assert launcher.stdout is not None
    for _ in range(3):
        launcher.stdout.readline()  # they train
    everybody = [psutil.Process(launcher.pid), *psutil.Process(launcher.pid).children(recursive=True)]
    for process in everybody:
        os.kill(process.pid, number)
    said = launcher.communicate(timeout=120)[0].splitlines()[-1]
    assert said.startswith("stopped ")
    checkpoint = RunFolder(tmp_path).last_good_checkpoint(2)
    assert checkpoint is not None
    assert checkpoint.name == f"checkpoint-{said.split()[1]}"
    psutil.wait_procs(everybody, timeout=20)
    assert not [process for process in everybody if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]

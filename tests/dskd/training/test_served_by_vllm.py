"""Real vLLM servers teach: the losses of a live teacher, and through every kill the weights of an undisturbed training."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.teachers.options import ServedOptions
from dskd.training.launch import launch_training
from dskd.training.worker import PROGRESS
from helpers import tiny_world
from helpers.training_runs import OPTIONS, ROUNDING, assert_same_weights, logged, saved_weights, train_tiny
from helpers.vllm_servers import VllmServer, running

pytestmark = pytest.mark.slow  # a server takes a minute to start

METHODS = ("dskd-v1", "dskd-v1-cma", "dskd-v2", "dskd-v2-eta", "kd", "gold", "alm")


def _served(*addresses: str, **options: Any) -> ServedOptions:
    return ServedOptions(addresses=addresses, dtype="float32", **options)


def _assert_same_losses(left: Path, right: Path) -> None:
    for step, other in zip(logged(left), logged(right), strict=True):
        assert step.keys() == other.keys()
        for name, value in step.items():
            if name == "rollout_seconds":
                continue
            assert other[name] == pytest.approx(value, rel=1e-5, abs=1e-5), (step["step"], name)


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_a_live_teacher(
    served_world: Path, replicas: tuple[str, str], tmp_path: Path, method: str
) -> None:
    train_tiny(served_world, tmp_path / "live", method)
    report = train_tiny(served_world, tmp_path / "served", method, served=_served(*replicas))
    assert report.served["retries"] == 0
    _assert_same_losses(tmp_path / "live", tmp_path / "served")
    assert_same_weights(saved_weights(tmp_path / "live"), saved_weights(tmp_path / "served"), **ROUNDING)


def test_losses_on_the_students_own_text_are_those_of_a_live_teacher(
    served_world: Path, replicas: tuple[str, str], tmp_path: Path
) -> None:
    changes: Any = {"rollouts": {"share": 0.7, "max_new_tokens": 12}, "gradient_accumulation_steps": 2}
    train_tiny(served_world, tmp_path / "live", "dskd-v2", **changes)
    report = train_tiny(served_world, tmp_path / "served", "dskd-v2", served=_served(*replicas), **changes)
    assert report.rollouts.samples > 0
    _assert_same_losses(tmp_path / "live", tmp_path / "served")


# A micro-batch and a checkpoint every other step; 20 examples are five micro-batches an epoch.
KILLED = {**OPTIONS, "steps": 12, "checkpoint_steps": 2}


def _request(world: Path, output: Path, *addresses: str, **options: Any) -> dict[str, Any]:
    student = tiny_world.student_of("dskd-v2-eta")
    source = {"folder": str(world / "teacher"), "served": _served(*addresses).model_dump(mode="json")}
    folders = {"data": f"{student}-data", "student": student, "teacher": "teacher"}
    return {key: str(world / name) for key, name in folders.items()} | {
        "teacher_source": source,
        "method": "dskd-v2-eta",
        "options": {**KILLED, **options},
        "seed": 3,
        "output": str(output),
    }


class _Training:
    """A training in a process of its own."""

    def __init__(self, request: dict[str, Any]) -> None:
        path = Path(request["output"]).with_suffix(".json")
        path.write_text(json.dumps(request))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dskd.training.worker", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, step: int) -> None:
        """Wait for a step."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(PROGRESS) and json.loads(line.removeprefix(PROGRESS))["step"] >= step:
                return
        raise AssertionError(f"it ended before step {step}")

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def finish(self) -> None:
        said, _ = self._process.communicate()
        assert self._process.returncode == 0, said[-4000:]


@pytest.fixture(scope="module")
def mortal(served_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """A server that tests may kill, if they start it again. It computes one text at a time, so that no last bit depends on the others."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    log = tmp_path_factory.mktemp("mortal") / "server.log"
    server = VllmServer(served_world / "teacher", log, arguments=("--max-num-seqs", "1"))
    with running(server):
        yield server


@pytest.mark.parametrize("killed", [("server",), ("training",), ("server", "training")], ids="-and-".join)
def test_what_is_killed_and_started_again_changes_no_weight(
    served_world: Path, mortal: VllmServer, tmp_path: Path, killed: tuple[str, ...]
) -> None:
    _Training(_request(served_world, tmp_path / "whole", mortal.url)).finish()
    request = _request(served_world, tmp_path / "killed", mortal.url)
    training = _Training(request)
    training.until(5)
    if "server" in killed:
        mortal.kill()
        mortal.start()
    if "training" in killed:
        training.kill()
        training = _Training(request)
    training.finish()
    mortal.wait()
    report = json.loads((tmp_path / "killed" / "model" / "training_report.json").read_text())
    assert (report["resumed_from_step"] > 0) == ("training" in killed)
    assert (report["served"]["away_seconds"] > 1) == ("server" in killed)
    whole, other = saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "killed")
    assert whole.keys() == other.keys()
    assert [name for name, value in whole.items() if not torch.equal(other[name], value)] == []


def test_two_trainings_and_two_processes_of_one_share_a_server(
    served_world: Path, mortal: VllmServer, tmp_path: Path
) -> None:
    _Training(_request(served_world, tmp_path / "whole", mortal.url)).finish()
    beside = _Training(_request(served_world, tmp_path / "beside", mortal.url))
    pair = threading.Thread(
        target=lambda: launch_training(_request(served_world, tmp_path / "pair", mortal.url, batch_size=2), processes=2)
    )
    pair.start()
    beside.finish()
    pair.join()
    whole = saved_weights(tmp_path / "whole")
    other = saved_weights(tmp_path / "beside")
    assert [name for name, value in whole.items() if not torch.equal(other[name], value)] == []
    assert_same_weights(whole, saved_weights(tmp_path / "pair"), **ROUNDING)

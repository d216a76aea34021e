"""Jobs and the GPUs of this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dskd.plugins import class_at
from harness.executors.local import Executor
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder, planned
from helpers.paths import PYTHONPATH

STEP = """
import json
import os
import time

from harness.costs.resources import Resources
from harness.steps.base import Step


class Seen(Step):
    kind, version, product = "seen", 1, "seen.json"

    name: str
    gpus: float

    @property
    def id(self):
        return self.name

    @property
    def folder(self):
        return f"cells/{self.name}"

    def resources(self):
        return Resources(gpus=self.gpus)

    def run(self, job):
        import torch

        torch.zeros(1, device="cuda")
        seen = {"count": torch.cuda.device_count(), "names": os.environ.get("CUDA_VISIBLE_DEVICES")}
        time.sleep(1)  # beside the others
        self.path(job.root).write_text(json.dumps(seen))
        job.finish(job.output)
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, object]]]:
    """What jobs see that need so many GPUs each."""
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    (tmp_path / "seen.py").write_text(STEP)
    made = class_at(f"{tmp_path / 'seen.py'}:Seen")

    def run(*gpus: float) -> list[dict[str, object]]:
        steps = [made(name=f"job{number}", gpus=each) for number, each in enumerate(gpus)]
        outcomes = Runner(Executor(Settings(tmp_path)), Recorder(), jobs=len(gpus)).run(planned(tmp_path, *steps))
        assert {outcome.status for outcome in outcomes.values()} == {"done"}, outcomes
        return [json.loads(step.path(tmp_path).read_text()) for step in steps]

    return run


@pytest.mark.gpu
def test_a_job_that_is_given_one_gpu_sees_one(seen: Callable[..., list[dict[str, object]]]) -> None:
    (one,) = seen(1)
    assert one["count"] == 1
    assert one["names"]
    assert "," not in str(one["names"])


@pytest.mark.gpu
def test_small_jobs_share_a_gpu(seen: Callable[..., list[dict[str, object]]]) -> None:
    shares = seen(0.25, 0.25)
    assert [each["count"] for each in shares] == [1, 1]
    assert len({each["names"] for each in shares}) == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs")
def test_jobs_beside_each_other_have_gpus_of_their_own(seen: Callable[..., list[dict[str, object]]]) -> None:
    one, other = seen(1, 1)
    assert one["count"] == other["count"] == 1
    assert one["names"] != other["names"]

"""Jobs as their processes, without a run around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.runs.job_spec import PROGRESS_DESCRIPTOR, JobSpec
from harness.steps.base import Step
from helpers.paths import PYTHONPATH, ROOT


def write_spec(root: Path, step: Step, **more: Any) -> Path:
    """The specification of a job that makes all outputs of a step."""
    outputs = [output.folder for output in step.outputs]
    spec = JobSpec(root=str(root), step=step.model_dump(mode="json"), outputs=outputs, **more)
    path = root / ".harness" / "specs" / f"{step.kind}-{len(outputs)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(spec.model_dump_json(), encoding="utf-8")
    return path


class JobProcess:
    """`python -m harness.jobs` of a step, whose output goes into a file and whose events are kept."""

    def __init__(self, root: Path, step: Step, **more: Any) -> None:
        root.mkdir(parents=True, exist_ok=True)
        reader, writer = os.pipe()
        paths = os.pathsep.join([str(ROOT), PYTHONPATH])
        environment = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", PROGRESS_DESCRIPTOR: str(writer)}
        self.log = root / "job.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "harness.jobs", str(write_spec(root, step, **more))],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                pass_fds=(writer,),
                start_new_session=True,
            )
        os.close(writer)
        self._reader = reader

    def wait(self, seconds: float = 300) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def events(self) -> list[dict[str, Any]]:
        """What it has said, once it has ended."""
        with os.fdopen(self._reader, encoding="utf-8") as events:
            return [json.loads(line) for line in events]

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        """Wait for something that the job does."""
        limit = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text(errors="replace")
            assert time.monotonic() < limit, self.log.read_text(errors="replace")
            time.sleep(0.02)

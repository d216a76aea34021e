"""A kind of step for tests that counts slowly, with a checkpoint after every number, and ends at one where it is asked to."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Annotated

from harness.runs.job_context import JobContext
from harness.steps.base import NOT_IDENTITY, Of, Step


class CountingStep(Step):
    """Counts to `numbers`, each in `seconds`. What it has counted stands in `journal`, a line `name number` each time."""

    kind = "counting"
    version = 1
    product = "product"

    name: str
    numbers: int
    seconds: Annotated[float, NOT_IDENTITY]
    journal: Annotated[Path, NOT_IDENTITY]
    after: Annotated[tuple[Of[Step], ...], NOT_IDENTITY] = ()

    @property
    def id(self) -> str:
        return self.name

    @property
    def folder(self) -> str:
        return f"cells/{self.name}"

    def run(self, job: JobContext) -> None:
        node, devices = os.environ.get("SLURMD_NODENAME"), os.environ.get("CUDA_VISIBLE_DEVICES")
        print(
            f"on {node} of {socket.gethostname()}, devices {devices}, threads {os.environ['OMP_NUM_THREADS']}",
            flush=True,
        )
        checkpoint = job.folder / "checkpoint"
        done = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for number in range(done + 1, self.numbers + 1):
            end = time.monotonic() + self.seconds
            while (left := end - time.monotonic()) > 0:
                time.sleep(left)
            with self.journal.open("a") as journal:
                journal.write(f"{self.name} {number}\n")
            checkpoint.write_text(str(number))
            job.advance("counting", number, self.numbers)
        self.path(job.root).write_text(f"counted to {self.numbers}")
        job.finish(job.output, report={"counted": self.numbers})

"""A kind of step for tests, from outside the package: does what it is told, and notes in a file outside its folder that it was run."""

import os
import resource
import signal
import time
from pathlib import Path
from typing import Annotated

from dskd.errors import InputError, TrainingFailed
from harness.runs.job_context import JobContext
from harness.steps.base import NOT_IDENTITY, Of, Step


class FakeStep(Step):
    kind = "fake"
    version = 1
    product = "product"

    name: str
    do: str
    journal: Annotated[Path, NOT_IDENTITY]
    after: Annotated[tuple[Of[Step], ...], NOT_IDENTITY] = ()
    until: Annotated[Path | None, NOT_IDENTITY] = None

    @property
    def id(self) -> str:
        return self.name

    @property
    def folder(self) -> str:
        return f"cells/{self.name}"

    def run(self, job: JobContext) -> None:
        with self.journal.open("a") as journal:
            journal.write(f"{self.id}\n")
        part = job.folder / "part"
        print(f"doing {self.do}, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}")
        if self.do == "fail":
            raise RuntimeError("the reason\nand more about it")
        if self.do == "input error":
            raise InputError("data.jsonl:3: is broken; mend it")
        if self.do == "training failed":
            raise TrainingFailed("the loss is nan at step 3; fix: lower learning_rate")
        if self.do == "lose a server once" and not part.exists():
            part.write_text("kept")
            raise ConnectionResetError("the server went away")
        if self.do == "stop at a checkpoint" and not part.exists():
            part.write_text(str(os.getpid()))
            while not job.stop_requested():
                time.sleep(0.02)
            part.write_text("kept")
            job.stop_here("at step 3 after its checkpoint")
        if self.do == "fail once it is asked to stop":
            part.write_text(str(os.getpid()))
            while not job.stop_requested():
                time.sleep(0.02)
            raise RuntimeError("a process of it was ended")
        if self.do == "never stop":
            part.write_text(str(os.getpid()))
            while True:
                time.sleep(0.02)
        if self.do == "take all memory":
            resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
            bytearray(2**32)
        if self.do == "fill the disk" and not part.exists():
            with (job.folder / "filling").open("wb") as filling:
                while True:
                    filling.write(b"x" * 4096)
        if self.do == "kill itself once" and not part.exists():
            part.write_text("kept")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.do == "wait" and self.until is not None:
            part.write_text(str(os.getpid()))
            while not self.until.exists():
                time.sleep(0.02)
        for step in range(3):
            job.progress.advance("steps", step + 1, 3)
        self.path(job.root).write_text(part.read_text() if part.exists() else "made")
        job.finish(job.output, report={"answer": 42})

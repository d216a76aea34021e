"""A kind of job for tests: does what its arguments say, and notes in a file outside its folder that it was run."""

import os
import resource
import signal
import time
from pathlib import Path

from dskd.errors import InputError, TrainingFailed
from harness.runs.job_context import JobContext


def run(job: JobContext) -> None:
    (output,) = job.spec.outputs
    do = job.arguments["do"]
    with Path(job.arguments["journal"]).open("a") as journal:
        journal.write(f"{job.spec.id}\n")
    part = job.folder / "part"
    print(f"doing {do}, OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']}")
    if do == "fail":
        raise RuntimeError("the reason\nand more about it")
    if do == "input error":
        raise InputError("data.jsonl:3: is broken; mend it")
    if do == "training failed":
        raise TrainingFailed("the loss is nan at step 3; hint: lower learning_rate")
    if do == "take all memory":
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        bytearray(2**32)
    if do == "fill the disk" and not part.exists():
        with (job.folder / "filling").open("wb") as filling:
            while True:
                filling.write(b"x" * 4096)
    if do == "kill itself once" and not part.exists():
        part.write_text("kept")
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "wait":
        part.write_text(str(os.getpid()))
        while not Path(job.arguments["until"]).exists():
            time.sleep(0.02)
    for step in range(3):
        job.progress.advance("steps", step + 1, 3)
    (job.folder / "product").write_text(part.read_text() if part.exists() else "made")
    job.finish(output, report={"answer": 42})

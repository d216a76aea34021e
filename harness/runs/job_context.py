"""What a running step is given: the folder of the run, the outputs to make, and the way to report."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dskd.errors import Stopped
from harness.runs.environment import environment, peak_device_memory, peak_memory
from harness.runs.job_spec import PROGRESS_DESCRIPTOR, Output
from harness.runs.records import Cost, Record, SandboxUsed
from harness.runs.store import LOG, RESULT, SAMPLES, Store, write_jsonl_atomic, write_text_atomic


class ProgressChannel:
    """JSON lines to whoever started the job; silence where nobody listens."""

    def __init__(self) -> None:
        descriptor = os.environ.pop(PROGRESS_DESCRIPTOR, None)
        self._descriptor = int(descriptor) if descriptor else None
        self._last = 0.0

    def send(self, **event: Any) -> None:
        """Send one event."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, (json.dumps(event) + "\n").encode())
        except (BrokenPipeError, BlockingIOError):
            self._descriptor = None  # the listener is gone; the watch on the parent decides what that means

    def advance(self, stage: str, done: float, total: float | None) -> None:
        """Say how far a stage is; at most ten times a second, and always at its end."""
        moment = time.monotonic()
        if moment - self._last >= 0.1 or (total is not None and done >= total):
            self._last = moment
            self.send(event="progress", stage=stage, done=done, total=total)


class JobContext:
    """A running job.

    Attributes:
        root: the folder of the run, from which every input of a step knows its path.
        folder: the job's own folder, which holds its log.
        pending: the outputs that are not made yet.
        attempt: which try this is, from 1.
        split_batches: the parts in which a training computes each micro-batch.
    """

    def __init__(
        self,
        root: Path,
        folder: str,
        pending: Sequence[Output],
        progress: ProgressChannel,
        *,
        stop: Callable[[], bool] = lambda: False,
        attempt: int = 1,
        split_batches: int = 1,
    ) -> None:
        self._stop = stop
        self.attempt, self.split_batches = attempt, split_batches
        self.root = root
        self.store = Store(root)
        self.folder = root / folder
        self.pending = list(pending)
        self.progress = progress
        self._started = time.monotonic()

    def stop_requested(self) -> bool:
        """Whether the job has been asked to stop as soon as what it has finished is on the disk."""
        return self._stop()

    def stop_here(self, where: str = "after what it had finished") -> None:
        """Raise `Stopped` where that was asked for. Call it when everything that is finished is on the disk."""
        if self.stop_requested():
            raise Stopped(where=where)

    def advance(self, stage: str, done: float, total: float | None) -> None:
        """Say how far a stage is, and stop here where that was asked for."""
        self.progress.advance(stage, done, total)
        self.stop_here()

    @property
    def output(self) -> Output:
        """The output of a job that makes one."""
        (output,) = self.pending
        return output

    def seconds(self) -> float:
        """Since the job began."""
        return time.monotonic() - self._started

    def cost(self, **measured: Any) -> Cost:
        """The cost so far: what the caller measured, and the memory of this process."""
        own = {
            "wall_seconds": round(self.seconds(), 3),
            "peak_memory": peak_memory(),
            "peak_device_memory": peak_device_memory(),
        }
        return Cost(**{**own, **measured})

    def finish(
        self,
        output: Output,
        *,
        report: Mapping[str, Any] | None = None,
        cost: Cost | None = None,
        samples: Sequence[Mapping[str, Any]] | None = None,
        engine: str | None = None,
        sandbox: SandboxUsed | None = None,
        **result: Any,
    ) -> None:
        """Declare one output complete: its samples and record are written, then the manifest says done.

        `report` goes into the manifest, `result` are other fields of the record.
        """
        folder, cost = self.store.output(output.folder), cost or self.cost()
        if samples is not None:
            write_jsonl_atomic(folder.path / SAMPLES, samples)
        self._record(output, status="done", cost=cost, environment=environment(engine, sandbox), **result)
        folder.finish(cost.wall_seconds or 0.0, {**(report or {}), "cost": cost.model_dump()})
        self.pending.remove(output)

    def fail(self, error: str) -> None:
        """Declare every output that is not complete failed."""
        for output in list(self.pending):
            self._record(output, status="failed", error=error, cost=self.cost(), environment=environment())
            self.store.output(output.folder).fail(self.seconds(), error)
            self.pending.remove(output)

    def _record(self, output: Output, **fields: Any) -> None:
        folder = self.root / output.folder
        if output.cell is not None:
            identity = output.fingerprint.identity
            record = Record.model_validate({"cell": output.cell, "identity": identity, **fields})
            write_text_atomic(folder / RESULT, record.model_dump_json(indent=2) + "\n")
        # A job with several outputs has one log; each output keeps what it said up to now.
        log = self.folder / LOG
        sys.stdout.flush()
        sys.stderr.flush()
        if log.is_file() and log.parent != folder:
            shutil.copyfile(log, folder / LOG)

"""What a running step is given: the folder of the run, the outputs to make, and the way to report."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dskd.errors import Stopped
from harness.runs.environment import device_memory, device_use, environment, memory, peak_device_memory, peak_memory
from harness.runs.job_spec import PROGRESS_DESCRIPTOR, Output
from harness.runs.job_state import StateWriter
from harness.runs.records import Cost, Record, SandboxUsed
from harness.runs.store import LOG, RESULT, SAMPLES, Store, write_jsonl_atomic, write_text_atomic


class ProgressChannel:
    """What a job says while it runs: JSON lines to whoever started it, where somebody listens, and its state on the disk.

    Args:
        state: Writes the state; None for a step that is run without being a job.
    """

    def __init__(self, state: StateWriter | None = None) -> None:
        descriptor = os.environ.pop(PROGRESS_DESCRIPTOR, None)
        self._descriptor = int(descriptor) if descriptor else None
        self.state = state
        self._last = 0.0
        self._measured = 0.0
        self._metrics: dict[str, float] = {}

    def waiting(self) -> None:
        """Say that another process does the job."""
        self.send(event="waiting")
        if self.state is not None:
            self.state.waiting()

    def started(self) -> None:
        """Say that the job has its lock and begins."""
        self.send(event="started", host=socket.gethostname(), devices=os.environ.get("CUDA_VISIBLE_DEVICES"))
        if self.state is not None:
            self.state.running()

    def failed(self, reason: str, *, retry: bool | None = None, kind: str = "") -> None:
        """Say why the job failed; `retry`: whether another try may pass; `kind`: `out_of_memory` where that was it."""
        self.send(event="failed", reason=reason, retry=retry, kind=kind)
        if self.state is not None:
            self.state.ended("failed", reason=reason, retry=retry, kind=kind)

    def ended(self, state: Literal["done", "stopped"], reason: str = "") -> None:
        """Say that the job is done, or stopped at a checkpoint; the exit code tells that to who started it."""
        if self.state is not None:
            self.state.ended(state, reason=reason)

    def send(self, **event: Any) -> None:
        """Send one event to who started the job."""
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, (json.dumps(event) + "\n").encode())
        except (BrokenPipeError, BlockingIOError):
            self._descriptor = None  # the listener is gone; the watch on the parent decides what that means

    def advance(self, stage: str, done: float, total: float | None) -> None:
        """Say how far a stage is; at most ten times a second, and always at its end."""
        if self.state is not None:
            self.state.progress(stage, done, total)
        moment = time.monotonic()
        if moment - self._last >= 0.1 or (total is not None and done >= total):
            self._last = moment
            self.send(event="progress", stage=stage, done=done, total=total)

    def measure(self, **metrics: Any) -> None:
        """Say numbers of a training or an evaluation: `loss`, `learning_rate`, `tokens_per_second`; at most once a second.

        What is no finite number is left out.
        """
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        self._metrics |= numbers
        if self.state is not None:
            self.state.metrics(numbers)
        moment = time.monotonic()
        if numbers and moment - self._measured >= 1.0:
            self._measured = moment
            self.send(
                event="metrics",
                metrics=self._metrics,
                memory=memory(),
                device_memory=device_memory(),
                device_use=device_use(),
            )


class JobContext:
    """A running job.

    Attributes:
        root: the folder of the run, from which every input of a step knows its path.
        folder: the job's own folder, which holds its log.
        pending: the outputs that are not made yet.
        attempt: which try this is, from 1.
        split_batches: the parts in which a training computes each micro-batch.
        store: the folder of the run as this job has opened it.
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
        store: Store | None = None,
    ) -> None:
        self._stop = stop
        self.attempt, self.split_batches = attempt, split_batches
        self.root = root
        self.store = store or Store(root)
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

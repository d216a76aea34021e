"""Jobs as processes of this machine, several at once."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dskd.processes import process_environment, python_module
from harness.runs.environment import cores
from harness.runs.job_spec import DONE, MAY_PASS, PARENT_DESCRIPTOR, PROGRESS_DESCRIPTOR
from harness.runs.store import LOG, Store
from harness.scheduling.executor import Attempt, BaseExecutor, Ended, Place, Said
from harness.scheduling.reasons import failure_reason

_GRACE_SECONDS = 10.0


def default_jobs() -> int:
    """Jobs at once: two where there are two cores, one where they would share a GPU."""
    gpus = any(Path("/dev").glob("nvidia[0-9]*"))
    return 1 if gpus else min(2, cores())


@dataclass
class _Running:
    attempt: Attempt
    process: subprocess.Popen[bytes]
    progress: int  # we read
    parent: int  # we keep it open: the job ends when it closes
    failed: dict[str, object] = field(
        default_factory=dict
    )  # what the job said of its failure, for when it cannot write it down
    started: float = field(default_factory=time.monotonic)
    buffer: bytes = b""


class Executor(BaseExecutor):
    """Runs jobs in processes of this machine.

    A job gets its cores and GPUs, writes to its own log, and ends with us: it is in a process group that is ended with the run, and it
    watches a pipe that closes even when we are killed.
    """

    def open(self) -> None:
        self._running: dict[str, _Running] = {}
        self._selector = selectors.DefaultSelector()

    def places(self) -> list[Place] | None:
        import psutil

        gpus = self.settings.gpus if self.settings.gpus is not None else len([*Path("/dev").glob("nvidia[0-9]*")])
        return [Place("here", cores(), gpus, psutil.virtual_memory().total)]

    def start(self, attempt: Attempt) -> None:
        job = attempt.job
        job.folder.mkdir(parents=True, exist_ok=True)
        told = job.spec(attempt=attempt.number, split_batches=attempt.split_batches)
        spec = Store(job.root).write_spec(job.id, told.model_dump_json(indent=2))
        with (job.folder / LOG).open("ab") as stream, contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            progress_read, progress_write = os.pipe()
            parent_read, parent_write = os.pipe()
            theirs.callback(os.close, progress_write)
            theirs.callback(os.close, parent_read)
            ours.callback(os.close, progress_read)
            ours.callback(os.close, parent_write)
            environment = {PROGRESS_DESCRIPTOR: str(progress_write), PARENT_DESCRIPTOR: str(parent_read)}
            process = subprocess.Popen(
                python_module("harness.jobs", str(spec)),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**self._environment(attempt), **environment},
                pass_fds=(progress_write, parent_read),
                start_new_session=True,
            )
            ours.pop_all()  # kept open as long as the job runs
        os.set_blocking(progress_read, False)
        self._running[job.id] = _Running(attempt, process, progress_read, parent_write)
        self._selector.register(progress_read, selectors.EVENT_READ, job.id)

    def _environment(self, attempt: Attempt) -> dict[str, str]:
        # Too many threads slow a small model thirty-fold; who has set the number has a reason.
        cpus = attempt.allocation.cpus if attempt.allocation is not None else self.usual_cpus
        threads = os.environ.get("OMP_NUM_THREADS") or str(cpus)
        environment = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
        if self.settings.offline:
            environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        return process_environment(environment)

    def poll(self, seconds: float) -> Iterator[Said | Ended]:
        if not self._selector.get_map():
            time.sleep(min(seconds, 0.05))  # every channel is closed: the jobs are about to end
        else:
            for key, _ in self._selector.select(timeout=seconds):
                running = self._running[key.data]
                yield from self._hear(running)
        for job, running in list(self._running.items()):
            if (code := running.process.poll()) is not None:
                yield from self._hear(running)  # its last words
                del self._running[job]
                self._close(running)
                yield self._end(running, code)

    def _hear(self, running: _Running) -> Iterator[Said]:
        """What a job says now; its channel is listened to no more where it has closed it."""
        try:
            chunk = os.read(running.progress, 65536)
        except BlockingIOError:
            return
        if not chunk:
            with contextlib.suppress(KeyError):
                self._selector.unregister(running.progress)
        *lines, running.buffer = (running.buffer + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "failed":
                running.failed = event
            else:
                yield Said(running.attempt.job.id, event)

    def _end(self, running: _Running, code: int) -> Ended:
        job, seconds = running.attempt.job, time.monotonic() - running.started
        if code == DONE:
            return Ended(job.id, code, seconds=seconds)
        reason = failure_reason(job, code, str(running.failed.get("reason", "")))
        retry = code == MAY_PASS or code < 0
        return Ended(job.id, code, reason, str(running.failed.get("kind", "")), retry, seconds)

    def _close(self, running: _Running) -> None:
        with contextlib.suppress(KeyError):  # not registered any more where the job closed its channel first
            self._selector.unregister(running.progress)
        os.close(running.progress)
        os.close(running.parent)

    def stop(self, job: str, *, now: bool) -> None:
        if job in self._running:
            _signal_group(self._running[job].process, signal.SIGKILL if now else signal.SIGTERM)

    def close(self) -> None:
        """End what still runs: politely first, then for good."""
        for running in self._running.values():
            _signal_group(running.process, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        for running in self._running.values():
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal_group(running.process, signal.SIGKILL)
                running.process.wait()
            self._close(running)
        self._running.clear()
        self._selector.close()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)

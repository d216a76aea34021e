"""Jobs as processes of this machine, several at once."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dskd.errors import InputError
from dskd.modeling.gpu_share import GPU_SHARE
from dskd.processes import process_environment
from harness.costs.resources import BASE_MEMORY, GIGABYTE
from harness.executors._gpus import Gpus, gpus_of
from harness.executors._process import ColdProcess, ForkedProcess, JobProcess
from harness.executors._warm_servers import WarmServers
from harness.planning.plan import PlannedJob
from harness.runs.job_spec import DONE, MAY_PASS
from harness.runs.machine import available_memory, cores, total_memory
from harness.runs.store import LOG, Store
from harness.scheduling.executor import Attempt, BaseExecutor, Ended, ExecutorOptions, Place, Said, Settings
from harness.scheduling.job_environment import job_environment, threads_of
from harness.scheduling.reasons import failure_reason

_GRACE_SECONDS = 10.0
_WARM_LOG = ".harness/warm.log"  # in the folder of a run


def default_jobs() -> int:
    """Jobs at once where `--jobs` does not say: one a GPU; without any, one a core, as many as there is memory for."""
    gpus = len(gpus_of(os.environ).names)
    return gpus or max(1, min(cores(), available_memory() // BASE_MEMORY))


class Options(ExecutorOptions):
    """Options of local runs.

    Attributes:
        warm: Fork jobs from processes that have loaded their libraries; where it pays if this is not given.
    """

    warm: bool | None = None


@dataclass
class _Running:
    attempt: Attempt
    process: JobProcess
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

    Options = Options

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._gpus = gpus_of(os.environ, settings.gpus)
        self._warm = settings.options.warm if isinstance(settings.options, Options) else None
        self._jobs: Sequence[PlannedJob] = ()
        if self._gpus.names:
            self.usual_cpus = max(1, cores() // len(self._gpus.names))

    @property
    def gpus(self) -> Gpus:
        """The GPUs that jobs can be given."""
        return self._gpus

    def check(self, jobs: Sequence[PlannedJob]) -> None:
        """InputError for a job that asks for more GPUs than there are; a line for one that asks for more memory or cores."""
        self._jobs, told = jobs, set[tuple[str, str]]()
        for job in jobs:
            needs, place = job.resources, f"resources.{job.kind}"
            if needs.gpus_required and needs.gpus > len(self._gpus.names):
                raise InputError(
                    f"{place}.gpus: {job.title} needs {needs.gpus:g} GPUs, and this machine has {len(self._gpus.names)}; "
                    f"fix: lower it, or leave it out"
                )
            if needs.memory > total_memory() and (job.kind, "memory") not in told:
                told.add((job.kind, "memory"))
                print(
                    f"{place}.memory: {job.title} needs {needs.memory / GIGABYTE:.1f} GB, and this machine has "
                    f"{total_memory() / GIGABYTE:.1f} GB; it runs alone",
                    file=sys.stderr,
                )

    def open(self) -> None:
        self._running: dict[str, _Running] = {}
        self._selector = selectors.DefaultSelector()
        log = self.settings.root / _WARM_LOG
        self._servers = WarmServers(
            self._jobs, threads=self._threads, environment=self._environment, log=log, always=self._warm
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        self._servers.open()

    def places(self) -> list[Place] | None:
        return [Place("here", cores(), len(self._gpus.names), available_memory())]

    def start(self, attempt: Attempt) -> None:
        self._start(attempt, warm=True)

    def _start(self, attempt: Attempt, *, warm: bool) -> None:
        job = attempt.job
        job.folder.mkdir(parents=True, exist_ok=True)
        told = job.spec(attempt=attempt.number, split_batches=attempt.split_batches)
        spec = Store(job.root).write_spec(job.id, told.model_dump_json(indent=2))
        environment = {**self._environment(self._threads(job)), **self._given_gpus(attempt)}
        with (job.folder / LOG).open("ab") as stream, contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            progress_read, progress_write = os.pipe()
            parent_read, parent_write = os.pipe()
            theirs.callback(os.close, progress_write)
            theirs.callback(os.close, parent_read)
            ours.callback(os.close, progress_read)
            ours.callback(os.close, parent_write)
            started = spec, environment, stream.fileno(), progress_write, parent_read
            process = (self._forked(job, *started) if warm else None) or ColdProcess(*started)
            ours.pop_all()  # kept open as long as the job runs
        os.set_blocking(progress_read, False)
        self._running[job.id] = _Running(attempt, process, progress_read, parent_write)
        self._selector.register(progress_read, selectors.EVENT_READ, job.id)

    def _forked(self, job: PlannedJob, *started: Any) -> JobProcess | None:
        """A process from a warm server; None where there is none, or it has just died."""
        server = self._servers.server_for(job)
        with contextlib.suppress(OSError):
            return None if server is None else ForkedProcess(server, *started)
        return None

    def _threads(self, job: PlannedJob) -> int:
        needs = job.resources if self._gpus.names else job.resources.replaced(gpus=0.0)
        return threads_of(needs.threads(self.usual_cpus))

    def _environment(self, threads: int) -> dict[str, str]:
        return process_environment(job_environment(threads, offline=self.settings.offline))

    def _given_gpus(self, attempt: Attempt) -> dict[str, str]:
        """What says which GPUs a job has, and how much of one that it shares."""
        if attempt.allocation is None:
            return {}
        devices, share = attempt.allocation.gpus, attempt.job.resources.gpus
        shared = {GPU_SHARE: f"{share:g}"} if devices and 0 < share < 1 else {}
        return {**self._gpus.environment(devices), **shared}

    def poll(self, seconds: float) -> Iterator[Said | Ended]:
        for server in self._servers:
            if server.fileno() not in self._selector.get_map():
                self._selector.register(server.fileno(), selectors.EVENT_READ, server)
        if not self._selector.get_map():
            time.sleep(min(seconds, 0.05))  # every channel is closed: the jobs are about to end
        else:
            for key, _ in self._selector.select(timeout=seconds):
                if isinstance(key.data, str):
                    yield from self._hear(self._running[key.data])
                else:
                    self._hear_server(key)
        for job, running in list(self._running.items()):
            if (code := running.process.poll()) is not None:
                yield from self._hear(running)  # its last words
                del self._running[job]
                self._close(running)
                if not (running.process.lost and not running.process.began and self._started_again(running)):
                    yield self._end(running, code)

    def _started_again(self, running: _Running) -> bool:
        """Start a job by itself whose server could not fork it; False where that is impossible too."""
        try:
            self._start(running.attempt, warm=False)
        except OSError:
            return False
        return True

    def _hear_server(self, key: selectors.SelectorKey) -> None:
        key.data.receive()
        if not key.data.alive:
            self._selector.unregister(key.fileobj)

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
        reason = failure_reason(job, code, str(running.failed.get("reason", "") or running.process.lost))
        retry = code == MAY_PASS or code < 0
        return Ended(job.id, code, reason, str(running.failed.get("kind", "")), retry, seconds)

    def _close(self, running: _Running) -> None:
        with contextlib.suppress(KeyError):  # not registered any more where the job closed its channel first
            self._selector.unregister(running.progress)
        os.close(running.progress)
        os.close(running.parent)

    def stop(self, job: str, *, now: bool) -> None:
        if job in self._running:
            self._running[job].process.signal(signal.SIGKILL if now else signal.SIGTERM)

    def close(self) -> None:
        """End what still runs: politely first, then for good."""
        if self._running:
            self._end_all(signal.SIGTERM, _GRACE_SECONDS)
            self._end_all(signal.SIGKILL, _GRACE_SECONDS)
        for running in self._running.values():
            self._close(running)
        self._running.clear()
        self._servers.close()
        self._selector.close()

    def _end_all(self, number: int, seconds: float) -> None:
        """Send a signal to all that runs, and wait until it has ended, for so many seconds at most."""
        for running in self._running.values():
            running.process.signal(number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for server in self._servers:
                server.receive()
            if all(running.process.poll() is not None for running in self._running.values()):
                return
            time.sleep(0.02)

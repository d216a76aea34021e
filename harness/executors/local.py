"""Jobs as processes of this machine, several at once."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from dskd.processes import process_environment, python_module
from harness.executors import Outcome, Reporter
from harness.planning.plan import PlannedJob
from harness.runs.environment import cores
from harness.runs.failures import reason_of, reason_of_exit
from harness.runs.job_spec import PARENT_DESCRIPTOR, PROGRESS_DESCRIPTOR
from harness.runs.store import LOG, Store

_GRACE_SECONDS = 10.0


def default_jobs() -> int:
    """Jobs at once: two where there are two cores, one where they would share a GPU."""
    gpus = any(Path("/dev").glob("nvidia[0-9]*"))
    return 1 if gpus else min(2, cores())


@dataclass
class _Running:
    job: PlannedJob
    process: subprocess.Popen[bytes]
    progress: int  # we read
    parent: int  # we keep it open: the job ends when it closes
    log: Path
    reason: str = ""  # what the job said through its channel, for when it cannot write it down
    started: float = field(default_factory=time.monotonic)
    buffer: bytes = b""


class Executor:
    """Runs jobs in processes, each after what it needs, at most `jobs` at once.

    A job gets its share of the cores, writes to its own log, and ends with us: it is in a process group that is ended on Ctrl-C,
    and it watches a pipe that closes even when we are killed.
    """

    def __init__(self, *, jobs: int, fail_fast: bool, reporter: Reporter, offline: bool) -> None:
        self._jobs = jobs
        self._fail_fast = fail_fast
        self._reporter = reporter
        self._environment = _job_environment(jobs, offline)
        self._running: dict[str, _Running] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._titles: dict[str, str] = {}
        self._selector = selectors.DefaultSelector()

    def run(self, planned: Sequence[PlannedJob]) -> dict[str, Outcome]:
        """Run the jobs, given in an order in which each comes after what it needs; the outcome of each by its id.

        KeyboardInterrupt (also for SIGTERM) ends the running jobs and passes on; what they did stays.
        """
        waiting = {job.id: job for job in planned}
        self._titles = {job.id: job.title for job in planned}
        previous = signal.signal(signal.SIGTERM, _as_interrupt)
        try:
            while waiting or self._running:
                self._start_ready(waiting)
                if self._running:
                    self._listen()
                    self._reap()
        finally:
            signal.signal(signal.SIGTERM, previous)
            self._stop_all()
            self._selector.close()
        return self._outcomes

    def _start_ready(self, waiting: dict[str, PlannedJob]) -> None:
        stopping = self._fail_fast and any(o.status == "failed" for o in self._outcomes.values())
        for key, job in list(waiting.items()):
            ended = [need for need in job.needs if need in self._outcomes]
            bad = next((need for need in ended if self._outcomes[need].status != "done"), None)
            if bad is not None:
                # The first failure is the reason; what lies between needs no telling.
                first, failed = self._outcomes[bad], f"needs '{self._titles[bad]}', which failed"
                self._end(job, Outcome("not_run", first.reason if first.status == "not_run" else failed))
                del waiting[key]
            elif stopping:
                self._end(job, Outcome("not_run", "--fail-fast: another job failed"))
                del waiting[key]
            elif len(self._running) < self._jobs and not any(n in waiting or n in self._running for n in job.needs):
                del waiting[key]
                try:
                    self._start(job)
                except OSError as error:
                    self._end(job, Outcome("failed", f"could not be started: {reason_of(error)}"))

    def _start(self, job: PlannedJob) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        spec = Store(job.root).write_spec(job.id, job.spec().model_dump_json(indent=2))
        log = job.folder / LOG
        with log.open("ab") as stream, contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
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
                env={**self._environment, **environment},
                pass_fds=(progress_write, parent_read),
                start_new_session=True,
            )
            ours.pop_all()  # kept open as long as the job runs
        os.set_blocking(progress_read, False)
        self._running[job.id] = _Running(job, process, progress_read, parent_write, log)
        self._selector.register(progress_read, selectors.EVENT_READ, job.id)
        self._reporter.started(job)

    def _listen(self) -> None:
        """Wait a moment for news, and pass it on."""
        for key, _ in self._selector.select(timeout=0.1):
            if not self._hear(self._running[key.data]):
                self._selector.unregister(key.fd)
        if not self._selector.get_map():
            time.sleep(0.05)  # every channel is closed: the jobs are about to end

    def _hear(self, running: _Running) -> bool:
        """Pass on what a job says now; False where it has closed its channel."""
        try:
            chunk = os.read(running.progress, 65536)
        except BlockingIOError:
            return True
        *lines, running.buffer = (running.buffer + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "failed":
                running.reason = event["reason"]
            else:
                self._reporter.progress(running.job, event)
        return bool(chunk)

    def _reap(self) -> None:
        for key, running in list(self._running.items()):
            if (code := running.process.poll()) is None:
                continue
            self._hear(running)  # its last words
            del self._running[key]
            self._close(running)
            seconds = time.monotonic() - running.started
            done = Outcome("done", seconds=seconds)
            self._end(running.job, done if code == 0 else Outcome("failed", _failure(running, code), seconds))

    def _end(self, job: PlannedJob, outcome: Outcome) -> None:
        self._outcomes[job.id] = outcome
        self._reporter.ended(job, outcome)

    def _close(self, running: _Running) -> None:
        with contextlib.suppress(KeyError):  # not registered any more where the job closed its channel first
            self._selector.unregister(running.progress)
        os.close(running.progress)
        os.close(running.parent)

    def _stop_all(self) -> None:
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


def _as_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _job_environment(jobs: int, offline: bool) -> dict[str, str]:
    # Too many threads slow a small model thirty-fold; who has set the number has a reason.
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // jobs))
    environment = {"OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if offline:
        environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return process_environment(environment)


def _failure(running: _Running, code: int) -> str:
    """Why a job failed, in one line: what it said itself, or how it was ended."""
    if running.reason:
        return running.reason
    store = Store(running.job.root)
    for output in running.job.wanted:
        state, manifest = store.output(output.folder).state()
        if state == "failed" and manifest is not None and manifest.error and code > 0:
            return manifest.error
    lines = [line for line in running.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = f"; last line of its log: {lines[-1].strip()}" if lines else ""
    return f"{reason_of_exit(code)}{last}"

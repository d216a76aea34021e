"""What a running job says of itself on the disk: `DIR/.harness/jobs/<job id, with + for / and :>/state.json`.

Whoever sees the disk sees how far a job is: the harness that started it through a queue, `harness status` on another machine. The file
is written by the process that holds the job's lock, whole or not at all, at once when the state changes and otherwise every two seconds
where something is new, every fifteen where nothing is: `beat` goes up each time, so that who reads twice knows that the process lives,
whatever its clock says. It is a report and never a result: where it cannot be written, on a full disk for one, the job goes on.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from harness.runs.environment import device_memory, device_use, memory
from harness.runs.store import Store, now
from harness.runs.which_process import own

STATE = "state.json"
# Seconds between two writes: where something is new, and where nothing is.
NEWS, BEAT = 2.0, 15.0

JobStateName = Literal["starting", "waiting", "running", "done", "failed", "stopped"]
_AT_WORK = {"starting", "running"}


class JobState(BaseModel):
    """How far a job is.

    Attributes:
        job, title: Its id, and its name for people.
        folder, outputs: Under the root of the run, where its log is and what it makes.
        state: `starting` until it has its lock, `waiting` for another run that does the same job, `running`; then `done`, `failed`, or
            `stopped` at a checkpoint.
        attempt: Which try, from 1.
        host, machine, pid, born: The process (harness.runs.which_process).
        devices: CUDA_VISIBLE_DEVICES of the process; None where it is not set.
        started: When the try began, UTC by the clock of `host`.
        seconds: Since then, when this was written.
        beat: How often this was written in the try.
        stage, done, total: What it does, and how much of that is done; `total` is None where it is not known.
        metrics: The last of each number that a training or an evaluation gives: `loss`, `learning_rate`, `tokens_per_second`.
        memory: Bytes of main memory of the process.
        device_memory: Bytes of GPU memory that torch holds in the process; None without a GPU.
        device_use: How busy its GPUs are, in percent; None where NVIDIA's library is not there to say (`pip install nvidia-ml-py`).
        reason: Why it failed or stopped, one line.
        retry: Whether another try may pass; None where it did not say.
        kind: `out_of_memory` where that was the reason.
    """

    model_config = ConfigDict(frozen=True)

    job: str
    title: str = ""
    folder: str = ""
    outputs: list[str] = []
    state: JobStateName
    attempt: int = 1
    host: str = ""
    machine: str = ""
    pid: int = 0
    born: float | None = None
    devices: str | None = None
    started: str = ""
    seconds: float = 0.0
    beat: int = 0
    stage: str = ""
    done: float | None = None
    total: float | None = None
    metrics: dict[str, float] = {}
    memory: int | None = None
    device_memory: int | None = None
    device_use: float | None = None
    reason: str = ""
    retry: bool | None = None
    kind: str = ""

    @staticmethod
    def path(root: Path, job_id: str) -> Path:
        """The file of a job in a run's folder."""
        return Store(root).job_folder(job_id) / STATE

    @classmethod
    def read(cls, root: Path, job_id: str) -> JobState | None:
        """The state of a job; None where it has written none, or none that can be read."""
        return cls.read_file(cls.path(root, job_id))

    @classmethod
    def read_file(cls, path: Path) -> JobState | None:
        """As `read`, of a file."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None


class StateWriter:
    """Keeps the state of one try of a job on the disk; a thread of its own writes, so that no event waits for a disk.

    Nothing is written before the job has its lock where the file says that another process is at work: that one writes it.

    Args:
        root: The folder of the run.
        job_id: Whose state it is.
        attempt: Which try, from 1.
        about: More fields that stay: `title`, `folder`, `outputs`.
    """

    def __init__(self, root: Path, job_id: str, attempt: int = 1, **about: Any) -> None:
        self._path = JobState.path(root, job_id)
        self._lock = threading.Lock()  # of the fields
        self._writing = threading.Lock()  # of the file
        self._wake, self._closed = threading.Event(), False
        self._begun = time.monotonic()
        self._fields: dict[str, Any] = {
            "job": job_id,
            "state": "starting",
            "attempt": attempt,
            **own(),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "started": now(),
            "beat": 0,
            "metrics": {},
            **about,
        }
        self._new = False
        before = JobState.read_file(self._path)
        self._is_ours = before is None or before.state not in _AT_WORK or attempt > before.attempt
        self._write()

    def waiting(self) -> None:
        """Another process does the job."""
        before = JobState.read_file(self._path)
        self._is_ours = before is None or before.state not in _AT_WORK or before.pid == os.getpid()
        self._change(state="waiting")
        self._is_ours = False  # from now on the other one writes

    def running(self) -> None:
        """The job has its lock and begins."""
        self._is_ours = True
        for left in self._path.parent.glob(f".{STATE}.*"):  # by processes that were killed while they wrote
            left.unlink(missing_ok=True)
        self._change(state="running")
        threading.Thread(target=self._keep_writing, daemon=True, name="job-state").start()

    def progress(self, stage: str, done: float, total: float | None) -> None:
        """The job advanced."""
        with self._lock:
            self._fields |= {"stage": _text(stage), "done": done, "total": total}
            self._new = True

    def metrics(self, values: Mapping[str, float]) -> None:
        """These numbers have changed."""
        with self._lock:
            self._fields["metrics"] = {**self._fields["metrics"], **values}
            self._new = True

    def ended(self, state: JobStateName, *, reason: str = "", retry: bool | None = None, kind: str = "") -> None:
        """The try ended; nothing is written afterwards."""
        self._is_ours = True
        self._change(state=state, reason=_text(reason), retry=retry, kind=kind)
        self._closed = True
        self._wake.set()

    def _change(self, **fields: Any) -> None:
        with self._lock:
            self._fields |= fields
        self._write()

    def _keep_writing(self) -> None:
        last = time.monotonic()
        while not self._wake.wait(NEWS):
            if self._new or time.monotonic() - last >= BEAT:
                last = time.monotonic()
                self._write()

    def _write(self) -> None:
        """Write the file anew. Not synced: what a machine that loses power forgets here is of no use afterwards."""
        with self._writing:
            if self._closed or not self._is_ours:
                return
            with self._lock:
                self._new = False
                self._fields["beat"] += 1
                fields = dict(self._fields)
            state = JobState(
                **fields,
                seconds=round(time.monotonic() - self._begun, 3),
                memory=memory(),
                device_memory=device_memory(),
                device_use=device_use(),
            )
            temporary = self._path.with_name(f".{STATE}.{state.host}.{state.pid}")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                temporary.write_text(state.model_dump_json(exclude_defaults=True) + "\n", encoding="utf-8")
                temporary.replace(self._path)
            except OSError:  # a full disk, a folder that is gone: what the job makes will tell
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)


def _text(text: str) -> str:
    """Text that UTF-8 can write: a model may give half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()

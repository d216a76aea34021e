"""The process that Slurm starts for a job: `python _slurm_task.py FOLDER INDEX`, by the script of a submission.

It runs `python -m harness.jobs SPEC`, passes on the signals that Slurm sends, and leaves the end of the job in FOLDER/INDEX.state.json.
It also decides what follows, so that nobody has to watch: a job that ended at a checkpoint because its time is nearly over (SIGUSR1)
goes back into the queue, and so does one whose failure may pass, until its tries are used up. One that ran out of memory and can
compute in smaller parts is tried again here and at once. What was told to end (SIGTERM) is not put back: where that was a preemption
or a request to requeue, Slurm itself does that.

It imports nothing but the standard library, because it is started for every job and stays in memory beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

# As in harness.runs.job_spec, whose imports would cost more than all that this process does (a test compares them).
DONE, MAY_PASS, STOPPED = 0, 3, 75
PROGRESS_DESCRIPTOR, PARENT_DESCRIPTOR = "HARNESS_PROGRESS_FD", "HARNESS_PARENT_FD"
_COMMAND_SECONDS = 60.0
_WRITE_SECONDS = 60.0  # for which a disk that is full or away is tried again


class Task:
    """One job of a submission, as it is run on a node.

    Args:
        folder: Of the submission.
        index: Which of its jobs.
    """

    def __init__(self, folder: Path, index: int) -> None:
        submission = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
        self._folder, self._index = folder, index
        self._command: list[str] = submission["command"]
        self._tries: int = submission["tries"]
        self._restarts: int = submission["restarts"]
        self._job: dict[str, Any] = submission["jobs"][index]
        self._has_begun = False
        # Of earlier runs of this job in Slurm, before it was put back into the queue.
        self._counts = {"failures": 0, "stops": 0, "split_batches": int(self._job["split_batches"]), "seconds": 0.0}
        with contextlib.suppress(OSError, ValueError):
            before = json.loads(self._path("state.json").read_text(encoding="utf-8"))
            self._has_begun = True
            self._counts |= {name: before[name] for name in self._counts}
        self._restart = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        self._begun = time.monotonic()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: int | None = None  # the signal that told us to end

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._index}.{name}"

    def run(self) -> int:
        """Run the job, and once more where that is decided here. The exit code for Slurm."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._pass_on)
        while True:
            if self._path("stop").exists():
                return self._end(STOPPED, "was asked to stop before it began")
            self._write(state="running")
            code, said = self._run_once()
            what = self._decide(code, said)
            if what != "again here":
                return self._end(code, str(said.get("reason", "")), what)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        """Ask the job to stop, once: Slurm itself sends SIGTERM to it as well, and a second one would end it before its checkpoint."""
        is_first = self._asked is None
        self._asked = number if self._asked != signal.SIGTERM else self._asked
        if is_first and self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)

    def _run_once(self) -> tuple[int, dict[str, Any]]:
        """Run the job's process: its exit code, and what it said of its failure."""
        log = Path(self._job["log"])
        log.parent.mkdir(parents=True, exist_ok=True)
        progress_read, progress_write = os.pipe()
        parent_read, parent_write = os.pipe()  # open as long as we are there: the job ends when it closes
        environment = {PROGRESS_DESCRIPTOR: str(progress_write), PARENT_DESCRIPTOR: str(parent_read)}
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [*self._command, str(self._spec())],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=(progress_write, parent_read),
                start_new_session=True,
            )
        os.close(progress_write)
        os.close(parent_read)
        if self._asked is not None:  # a signal came while the process was being started
            self._process.send_signal(signal.SIGUSR1)
        said = _listen(progress_read, self._process)
        os.close(parent_write)
        return self._process.wait(), said

    def _spec(self) -> Path:
        """The specification of this try."""
        path = self._path("spec.json")
        spec = json.loads(path.read_text(encoding="utf-8"))
        attempt = int(self._job["attempt"]) + int(self._counts["failures"])
        # What was to be made again is resumed, once that was begun.
        fresh = spec["fresh"] and not self._has_begun
        self._has_begun = True
        changes = {"attempt": attempt, "split_batches": self._counts["split_batches"], "fresh": fresh}
        if all(spec[key] == value for key, value in changes.items()):
            return path
        spec |= changes
        again = self._path("again.spec.json")
        _write(again, spec)
        return again

    def _decide(self, code: int, said: dict[str, Any]) -> str:
        """What follows: nothing (`final`), nothing unless Slurm runs it again (`asked`), `again here`, or `requeue`."""
        if code == DONE:
            return "final"
        if self._asked == signal.SIGUSR1 and (code == STOPPED or code == -signal.SIGUSR1):
            self._counts["stops"] += 1
            is_over = self._path("stop").exists() or self._counts["stops"] > self._restarts
            return "asked" if is_over or not self._requeue("its time was nearly over") else "requeue"
        if self._asked is not None or code == STOPPED:
            return "asked"
        self._counts["failures"] += 1
        if int(self._job["attempt"]) + self._counts["failures"] > self._tries:
            return "final"
        reason = str(said.get("reason", "")) or f"exit code {code}"
        if said.get("kind") == "out_of_memory" and self._job["splits_batches"]:
            self._counts["split_batches"] *= 2
            self._write(state="again", reason=reason)
            return "again here"
        if code == MAY_PASS or code < 0:
            return "requeue" if self._requeue(reason) else "again here"
        return "final"

    def _requeue(self, reason: str) -> bool:
        """Put this job back into the queue; False where Slurm does not do that."""
        self._write(state="again", reason=reason)
        job = os.environ["SLURM_JOB_ID"]
        if "SLURM_ARRAY_TASK_ID" in os.environ:
            job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
        try:
            done = subprocess.run(["scontrol", "requeue", job], timeout=_COMMAND_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"scontrol requeue {job}: {error}", flush=True)
            return False
        return done.returncode == 0

    def _end(self, code: int, reason: str = "", what: str = "asked") -> int:
        if what != "requeue":  # `again` is written then, and may be followed by `running` of another node already
            self._write(state="ended", code=code, reason=reason, final=what == "final")
        return code if code > 0 else (DONE if code == DONE else 128 - code)

    def _write(self, **fields: Any) -> None:
        """Say how the job stands; waits where the disk is full or away, since nobody else can tell."""
        seconds = self._counts["seconds"] + time.monotonic() - self._begun
        state = {**fields, **self._counts, "seconds": round(seconds, 3), "host": socket.gethostname()}
        deadline = time.monotonic() + _WRITE_SECONDS
        while True:
            try:
                with contextlib.suppress(FileNotFoundError, ValueError):
                    before = json.loads(self._path("state.json").read_text(encoding="utf-8"))
                    if before["restart"] > self._restart:
                        return None  # Slurm took this node for lost, and the job runs on another one
                return _write(self._path("state.json"), {"restart": self._restart, **state})
            except OSError as error:
                if time.monotonic() > deadline or self._asked is not None:
                    print(f"{self._path('state.json')}: cannot be written: {error}", flush=True)
                    return None
                time.sleep(1)


def _listen(descriptor: int, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read what a job says until it has ended; what it said of its failure."""
    failed: dict[str, Any] = {}
    buffer = b""
    with selectors.DefaultSelector() as selector, os.fdopen(descriptor, "rb", buffering=0) as channel:
        os.set_blocking(descriptor, False)
        selector.register(channel, selectors.EVENT_READ)
        is_open = True
        while is_open or process.poll() is None:
            has_ended = process.poll() is not None
            if is_open:
                chunk = channel.read(65536) if selector.select(timeout=0.0 if has_ended else 0.5) else None
            else:
                time.sleep(0.2)
                continue
            if chunk == b"":
                selector.unregister(channel)
                is_open = False
            elif chunk is None and has_ended:
                break  # a process that outlives the job holds the channel open
            *lines, buffer = (buffer + (chunk or b"")).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event.get("event") == "failed":
                    failed = event
    return failed


def _write(path: Path, value: dict[str, Any]) -> None:
    """Write JSON atomically."""
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(value, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(Task(Path(sys.argv[1]), int(sys.argv[2])).run())

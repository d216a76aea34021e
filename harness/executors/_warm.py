"""Warm workers: our end of servers that have loaded what jobs import (`harness.executors._fork_server`), and their jobs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.processes import python_module
from harness.executors._fork_server import MESSAGE

# While it imports, a library may ask whether there is CUDA. Asked in this way that does not initialise CUDA, which no fork survives.
# OpenBLAS starts its threads as it is loaded; a job gets them as it begins.
SERVER_ENVIRONMENT = {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", "OPENBLAS_NUM_THREADS": "1"}
_SECONDS_TO_END = 5.0


@dataclass
class WarmProcess:
    """A job that a server has forked, or will fork. code: as of `Popen.returncode`. lost: the server died, and nobody knows how it ended."""

    id: str
    pid: int | None = None
    code: int | None = None
    error: str = ""
    lost: bool = False


@dataclass
class Request:
    """What a job is started with: descriptors are those of its log, its progress and its parent; `names` of the last two's variables."""

    spec: str
    environment: Mapping[str, str]
    descriptors: tuple[int, int, int]
    names: tuple[str, str]


class WarmServer:
    """A server process; its jobs wait until it has loaded its modules.

    Attributes:
        environment: What it was started with.
        unfit: Why it cannot fork, once it has said so.
        alive: Whether it still serves.
    """

    def __init__(
        self, channel: socket.socket, environment: Mapping[str, str], process: subprocess.Popen[bytes] | None
    ) -> None:
        self.environment, self.unfit, self.alive = dict(environment), "", True
        self._channel, self._process = channel, process
        self._jobs: dict[str, WarmProcess] = {}
        self._ready = False
        self._waiting: list[tuple[WarmProcess, Request, list[int]]] = []
        self._count = 0

    @classmethod
    def start(cls, modules: Sequence[str], environment: Mapping[str, str], log: Path) -> WarmServer:
        """Start a server that loads these modules. OSError where that is impossible."""
        environment = {**SERVER_ENVIRONMENT, **environment}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as stream:
            process = subprocess.Popen(
                python_module("harness.executors._fork_server", str(theirs.fileno()), *modules),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        return cls(ours, environment, process)

    def fork(self, modules: Sequence[str]) -> WarmServer:
        """A server forked from this one, that loads more modules."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            message = {"do": "serve", "modules": list(modules), "environment": {}}
            socket.send_fds(self._channel, [json.dumps(message).encode()], [theirs.fileno()])
        return WarmServer(ours, self.environment, None)

    def fileno(self) -> int:
        """Readable when `receive` has something to do."""
        return self._channel.fileno()

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded its modules."""
        return self.alive and self._ready

    @property
    def pid(self) -> int | None:
        """Of the server's process where we started it."""
        return self._process.pid if self._process is not None else None

    def spawn(self, request: Request) -> WarmProcess:
        """Fork a job, as soon as the server is ready. OSError where it cannot be told."""
        self._count += 1
        job = WarmProcess(str(self._count))
        if self._ready:
            self._send_start(job, request, request.descriptors)
        else:
            # Ours are closed by the caller; these are closed when they have been sent.
            self._waiting.append((job, request, [os.dup(descriptor) for descriptor in request.descriptors]))
        self._jobs[job.id] = job
        return job

    def _send_start(self, job: WarmProcess, request: Request, descriptors: Sequence[int]) -> None:
        progress, parent = request.names
        message = {
            "do": "start",
            "id": job.id,
            "spec": request.spec,
            "environment": _changes(self.environment, request.environment),
            "progress": progress,
            "parent": parent,
        }
        content = json.dumps(message).encode()
        if len(content) > MESSAGE:
            raise OSError(f"the job's environment differs by more than {MESSAGE} bytes from the run's")
        socket.send_fds(self._channel, [content], list(descriptors))

    def signal(self, job: WarmProcess, number: int) -> None:
        """Send a signal to a job's process group; one that has not begun never does."""
        if job.code is not None:
            return
        for entry in self._waiting:
            if entry[0] is job:
                self._waiting.remove(entry)
                _close(entry[2])
                self._jobs.pop(job.id)
                job.code = -number
                return
        with contextlib.suppress(OSError):  # the server is gone, which `receive` finds out
            self._channel.send(json.dumps({"do": "signal", "id": job.id, "number": int(number)}).encode())

    def receive(self) -> None:
        """Hear all that the server has said."""
        while self.alive:
            try:
                content = self._channel.recv(MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                content = b""
            if not content:
                self._die()
                return
            message = json.loads(content)
            if "ready" in message:
                self._begin()
            elif "unfit" in message:
                self.unfit = message["unfit"]
            else:
                self._hear(message)

    def _begin(self) -> None:
        """The server has loaded its modules: start what waits for it."""
        self._ready = True
        waiting, self._waiting = self._waiting, []
        for job, request, descriptors in waiting:
            try:
                self._send_start(job, request, descriptors)
            except OSError as error:
                self._jobs.pop(job.id)
                job.code, job.error = 1, str(error)
            finally:
                _close(descriptors)

    def _hear(self, message: Mapping[str, Any]) -> None:
        job = self._jobs[message["id"]]
        if "pid" in message:
            job.pid = message["pid"]
            return
        del self._jobs[job.id]
        if "error" in message:
            job.lost, job.code, job.error = True, -signal.SIGKILL, f"no process could be forked: {message['error']}"
        else:
            job.code = os.waitstatus_to_exitcode(message["status"])

    def _die(self) -> None:
        """The server is gone. What it forked is ended: nobody could hear how it ends."""
        self.alive = False
        self._channel.close()
        if not self._ready and not self.unfit:
            self.unfit = "the process that loads the libraries ended"
        for job in self._jobs.values():
            if job.pid is not None:
                signal_group(job.pid, signal.SIGKILL)
            job.lost, job.code = True, -signal.SIGKILL
            job.error = "the process that forks jobs was ended"
        self._jobs.clear()
        for _, _, descriptors in self._waiting:
            _close(descriptors)
        self._waiting.clear()
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """End the server, and what it has forked."""
        for _, _, descriptors in self._waiting:
            _close(descriptors)
        self._waiting.clear()
        if self.alive:
            self.alive = False
            self._channel.close()
        if self._process is None:
            return
        if not self._ready:  # it loads modules and hears nothing
            self._process.kill()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def _changes(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """The variables that differ, None where there is none any more."""
    changed: dict[str, str | None] = {name: None for name in before if name not in after}
    return {**changed, **{name: value for name, value in after.items() if before.get(name) != value}}


def _close(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)

"""The process of a job: started by ourselves, or forked by a warm server; both the same to the executor."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dskd.processes import python_module
from harness.executors._warm import Request, WarmProcess, WarmServer, signal_group
from harness.runs.job_spec import PARENT_DESCRIPTOR, PROGRESS_DESCRIPTOR

_PIPES = PROGRESS_DESCRIPTOR, PARENT_DESCRIPTOR


class JobProcess(Protocol):
    """A process that leads a process group."""

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, once it has ended."""

    def signal(self, number: int) -> None:
        """Send a signal to its group."""

    @property
    def lost(self) -> str:
        """Why nobody knows how it ended; "" where somebody does."""

    @property
    def began(self) -> bool:
        """Whether it has run at all."""


class ColdProcess:
    """A process of ours: `python -m harness.jobs`."""

    lost, began = "", True

    def __init__(self, spec: Path, environment: Mapping[str, str], log: int, progress: int, parent: int) -> None:
        pipes = dict(zip(_PIPES, (str(progress), str(parent)), strict=True))
        self._process = subprocess.Popen(
            python_module("harness.jobs", str(spec)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**environment, **pipes},
            pass_fds=(progress, parent),
            start_new_session=True,
        )

    def poll(self) -> int | None:
        code = self._process.poll()
        if code is not None and code < 0:
            # What it started itself may outlive it, and keep its GPU.
            signal_group(self._process.pid, signal.SIGTERM)
        return code

    def signal(self, number: int) -> None:
        if self._process.poll() is None:
            signal_group(self._process.pid, number)


class ForkedProcess:
    """A process that a warm server forks."""

    def __init__(
        self, server: WarmServer, spec: Path, environment: Mapping[str, str], log: int, progress: int, parent: int
    ) -> None:
        self._server = server
        self._job: WarmProcess = server.spawn(Request(str(spec), environment, (log, progress, parent), _PIPES))

    @property
    def lost(self) -> str:
        return self._job.error if self._job.lost else ""

    @property
    def began(self) -> bool:
        return self._job.pid is not None

    def poll(self) -> int | None:
        code = self._job.code
        if code is not None and code < 0 and self._job.pid is not None:
            signal_group(self._job.pid, signal.SIGTERM)
        return code

    def signal(self, number: int) -> None:
        self._server.signal(self._job, number)

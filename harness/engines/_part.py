"""One process of a `PartsEngine`, as seen by the process that started it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from dskd.processes import process_environment, python_module
from harness.engines._blocks import AnyBlock
from harness.engines._part_process import About, PartRequest

_SECONDS_TO_END = 10
_SHOWN = 4000  # bytes of the log of a process that failed
# What torchrun and accelerate tell a process about the training's group, and vLLM would take for its own.
_GROUP = ("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


class Part:
    """A process that answers one block at a time. It ends with this one.

    Attributes:
        connection: Readable once there is something to hear of it.
        results: Of the block that was asked last.
        about: What it says of its engine, once it is ready.
        peak_memory, peak_device_memory: So far, in bytes; without a GPU None.
    """

    about: About
    results: list[Any]
    peak_memory: int
    peak_device_memory: int | None

    def __init__(self, name: str, request: PartRequest, environment: Mapping[str, str]) -> None:
        self.name, self._busy = name, True
        self._log = tempfile.TemporaryFile(prefix="harness-engine-", suffix=".log")  # noqa: SIM115 - closed with the process
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                python_module("harness.engines._part_process", str(theirs.fileno()), str(os.getpid())),
                pass_fds=(theirs.fileno(),),
                env=_environment(environment),
                stdin=subprocess.DEVNULL,
                # What libraries print while they load is worth reading only where it is the last that the process printed.
                stdout=self._log,
                stderr=self._log,
                start_new_session=True,  # an interrupt is for this process, with which that one ends
            )
        self.connection: Connection[Any, Any] = Connection(os.dup(self._socket.fileno()))
        with suppress(OSError):  # gone already: what is heard of it says so
            self.connection.send(request)

    def get_ready(self) -> None:
        """Hear that the model is loaded. InputError as of `create_engine`, RuntimeError where the process is gone."""
        _, self.about = self._hear()
        self._busy = False

    def ask(self, block: AnyBlock) -> Iterator[int]:
        """Have a block answered: how many prompts are finished, each time that some are; then there are `results`."""
        self._busy = True
        try:
            self.connection.send(block)
        except OSError:
            raise self._gone() from None
        while (heard := self._hear())[0] == "finished":
            yield heard[1]
        self.results, self.peak_memory, self.peak_device_memory = heard[1]
        self._busy = False

    def _hear(self) -> tuple[str, Any]:
        try:
            kind, content = self.connection.recv()
        except (EOFError, OSError):
            raise self._gone() from None
        if kind == "input_error":
            raise InputError(content)
        return kind, content

    def _gone(self) -> RuntimeError:
        code = self._process.wait()
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - _SHOWN))
        printed = self._log.read().decode("utf-8", errors="replace").strip()
        if printed:
            print(f"{self.name} printed last:\n{printed}", file=sys.stderr, flush=True)
        how = f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        last = f": {printed.splitlines()[-1].strip()}" if printed else ""
        return RuntimeError(f"{self.name} was ended {how}{last}")

    def tell_to_end(self, *, at_once: bool) -> None:
        """End the process now, or where it only waits for a block let it end."""
        if at_once or self._busy:
            self._kill()
        with suppress(OSError):  # gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Wait for its end."""
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._kill()
            self._process.wait()

    def release(self) -> None:
        """Let go of what is left of a process that has ended, once nothing is asked of it any more."""
        self.connection.close()
        self._socket.close()
        self._log.close()

    def _kill(self) -> None:
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    inherited = {key: value for key, value in process_environment(more).items() if key not in _GROUP}
    # vLLM takes all cores of the machine for itself otherwise.
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind", **inherited, "PYTHONPATH": path}

"""Runs one program: starts its supervisor, gives it the program, listens for the verdict, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import time
from contextlib import suppress
from typing import Any

from harness.sandbox.isolation import Isolation
from harness.sandbox.isolation.base import VARIABLES
from harness.sandbox.program import Execution, Limits, Program

# From the start of the supervisor to the start of the program: a container takes its time.
START_SECONDS = 60.0
# After the program's own time: the supervisor ends it, and only where that is stopped this end is needed.
GRACE_SECONDS = 10.0
CLOSE_SECONDS = 2.0
# Two short lines; who says more is not listened to.
VERDICT_BYTES = 8192
POLL_SECONDS = 0.25


def run(program: Program, isolation: Isolation, limits: Limits, stop: int | None = None) -> Execution:
    """Run one program in isolation. Where the descriptor `stop` becomes readable, it is given up."""
    nonce = secrets.token_hex(16)
    try:
        with isolation.launch(limits) as launch:
            process = subprocess.Popen(
                launch.argv,
                cwd=launch.folder,
                env=launch.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
            settings = limits.settings(launch.processes) | {"variables": VARIABLES}
            talk = _Talk(process, _message(program, settings, nonce))
            try:
                ended_by = talk.listen(limits.seconds, stop)
            finally:
                code = _end(process)
                talk.close()
            return _judge(talk, nonce, code, ended_by)
    except OSError as error:  # no room on the disk, no process to be had: not the program's fault
        return Execution("harness_error", str(error), 0.0)


class _Talk:
    """What goes to the supervisor and what comes from it."""

    def __init__(self, process: subprocess.Popen[bytes], message: bytes) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._pipes = (process.stdout, process.stderr)
        self._stdin, self._stdout, self._stderr = (pipe.fileno() for pipe in (process.stdin, *self._pipes))
        self._left = message
        self.output = b""
        self.complained = b""
        for descriptor in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(descriptor, False)

    def listen(self, seconds: float, stop: int | None) -> str:
        """Write and read until all is read, and return what ended that: "end", "time" or "stop"."""
        poller = select.poll()
        poller.register(self._stdin, select.POLLOUT)
        for descriptor in (self._stdout, self._stderr, *([] if stop is None else [stop])):
            poller.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + START_SECONDS
        started = False
        while (remaining := deadline - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(1000 * min(remaining, POLL_SECONDS)):
                if descriptor == stop:
                    return "stop"
                if descriptor == self._stdin:
                    if not self._write():
                        poller.unregister(self._stdin)
                elif descriptor == self._stderr:
                    if not self._read_complaint():
                        poller.unregister(self._stderr)
                elif not self._read():
                    return "end"
            if not started and self.output.startswith(b"started\n"):
                started, deadline = True, time.monotonic() + seconds + GRACE_SECONDS
        return "time"

    def close(self) -> None:
        """Read what was complained of to the end, where it is there without waiting, and close the pipes."""
        with suppress(BlockingIOError):
            while self._read_complaint():
                pass
        for pipe in self._pipes:
            pipe.close()

    def _write(self) -> bool:
        try:
            self._left = self._left[os.write(self._stdin, self._left) :]
        except BrokenPipeError:
            return False
        return bool(self._left)

    def _read(self) -> bool:
        part = os.read(self._stdout, VERDICT_BYTES)
        self.output += part
        return bool(part) and len(self.output) < VERDICT_BYTES and self.output.count(b"\n") < 2

    def _read_complaint(self) -> bool:
        part = os.read(self._stderr, VERDICT_BYTES)
        self.complained = (self.complained + part)[-VERDICT_BYTES:]
        return bool(part)


def _message(program: Program, settings: dict[str, Any], nonce: str) -> bytes:
    tests = {"context": program.context, "tests": program.tests, "functions": list(program.functions)}
    source = program.source.encode("utf-8", "surrogatepass")
    frames = (json.dumps(settings).encode(), source, json.dumps(tests).encode(), nonce.encode())
    return b"".join(len(frame).to_bytes(8, "big") + frame for frame in frames)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Let the supervisor end by closing its lifeline, kill what is left, and return the exit code.

    It is collected last: until then its number, by which its process group is killed, is nobody else's.
    """
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    deadline = time.monotonic() + CLOSE_SECONDS
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        while os.waitid(os.P_PID, process.pid, options) is None and time.monotonic() < deadline:
            time.sleep(0.001)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    return code


def _judge(talk: _Talk, nonce: str, code: int, ended_by: str) -> Execution:
    """Return how the program ended. What carries no nonce is no verdict."""
    started, _, line = talk.output.partition(b"\n")
    if started != b"started":
        ends = {"time": f"in {START_SECONDS:.0f} seconds", "stop": "before it was interrupted"}
        how = ends.get(ended_by, f"(exit code {code})")
        why = (talk.complained.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        return Execution("harness_error", f"the sandbox did not start {how}{': ' if why else ''}{why}"[:300], 0.0)
    if ended_by == "stop":
        return Execution("harness_error", "interrupted", 0.0)
    try:
        reply = json.loads(line)
        verdict = Execution(reply["outcome"], reply["detail"], reply["seconds"], reply["starved"])
    except (ValueError, KeyError, TypeError):
        reply = {}
    if reply.get("nonce") != nonce:
        return Execution("timeout" if ended_by == "time" else "killed", f"with its supervisor (exit code {code})", 0.0)
    if verdict.outcome == "passed" and code != 0:
        return Execution("killed", f"its supervisor ended with exit code {code}", verdict.seconds)
    return verdict

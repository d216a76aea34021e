"""Runs generated programs, each in a child process with limits and without this process's environment.

What is contained: time (wall clock and processor), memory, file sizes, open files, core dumps, what is left in the
child's process group, the environment (a short allow-list, so no tokens, proxies or paths of this process), standard
input and output (both /dev/null), privileges by set-user-id programs, and the life of the child (it dies with the
thread that started it). A verdict of "passed" needs a random token that the runner writes after the program's end, and
exit code 0: leaving early never passes.

What is not contained, until the full sandbox: the network; files outside the private folder (the child has the user's
rights); the number of processes where the user is root, whom the kernel does not count; a child that leaves its process
group; and the verdict against a program written to cheat: test and candidate share one interpreter, so an object that
is equal to everything passes an equality test, and a program that searches its own process for descriptors can find the
token. Therefore the caller must ask for permission.

Linux only: other systems lack some of these limits, and `check_runner` refuses there.
"""

from __future__ import annotations

import math
import os
import resource
import secrets
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from dskd.errors import InputError

TIMEOUT_SECONDS = 3.0
WORKERS = 2
MEMORY_BYTES = 1 << 30
FILE_BYTES = 16 << 20
OPEN_FILES = 64
RUNNER = Path(__file__).with_name("code_runner.py")
# A verdict is two short lines; a program that writes more to the descriptor is not listened to.
VERDICT_BYTES = 4096
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Execution:
    """How a program ended.

    `outcome`: passed, failed (a test's assertion, or left before its end), exception, syntax_error, timeout, memory,
    killed (by a signal) or harness_error (the program never ran). `detail` is what was raised. `seconds` is wall-clock
    time. `starved` says that it timed out with processor time to spare: it slept, or the machine was busy.
    """

    outcome: str
    detail: str
    seconds: float
    starved: bool = False


def run_program(source: str, *, timeout: float = TIMEOUT_SECONDS) -> Execution:
    """Run one program, in a fresh interpreter, for at most `timeout` seconds."""
    try:
        with tempfile.TemporaryDirectory(prefix="harness-code-", ignore_cleanup_errors=True) as folder:
            program = Path(folder) / "program.py"
            program.write_bytes(source.encode("utf-8", "surrogatepass"))
            return _run_file(program, timeout)
    except OSError as error:  # no room on the disk, no process to be had: not the program's fault
        return Execution("harness_error", str(error), 0.0)


def run_programs(
    sources: Sequence[str],
    *,
    timeout: float = TIMEOUT_SECONDS,
    workers: int = WORKERS,
    advance: Callable[[], None] = lambda: None,
) -> list[Execution]:
    """Run many programs, a few at a time, and return how each ended, in their order; `advance` is called after each.

    A program that timed out without having had the processor is run once more at the end, alone.
    """
    if not sources:
        return []
    check_runner()
    executions: dict[int, Execution] = {}
    starved = []
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(run_program, source, timeout=timeout): number for number, source in enumerate(sources)}
        try:
            for future in as_completed(futures):
                number = futures[future]
                executions[number] = future.result()
                if executions[number].starved:
                    starved.append(number)
                else:
                    advance()
        except BaseException:  # an interrupt: what has not begun is not to begin
            pool.shutdown(cancel_futures=True)
            raise
    for number in starved:
        executions[number] = run_program(sources[number], timeout=timeout)
        advance()
    return [executions[number] for number in range(len(sources))]


@cache
def check_runner() -> None:
    """InputError unless a right program passes here and a wrong one fails: else every score would be an accident."""
    for source, expected in (("import math\nassert math.gcd(4, 6) == 2", "passed"), ("assert 1 == 2", "failed")):
        # Generous: this asks whether programs run at all, not how fast.
        execution = run_program(source, timeout=30.0)
        if execution.outcome != expected:
            raise InputError(
                f"generated code cannot be run here: a trial program ended as {execution.outcome!r}, not {expected!r} "
                f"({execution.detail}); check that {sys.executable} starts and that a process may limit itself"
            )


def _run_file(program: Path, timeout: float) -> Execution:
    nonce = secrets.token_hex(16).encode()
    nonce_reader, nonce_writer = os.pipe()
    verdict_reader, verdict_writer = os.pipe()
    started = time.monotonic()
    try:
        os.write(nonce_writer, nonce)
        try:
            process = subprocess.Popen(
                _command(program, nonce_reader, verdict_writer, timeout),
                cwd=program.parent,
                env=_environment(program.parent),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(nonce_reader, verdict_writer),
                start_new_session=True,
            )
        finally:
            os.close(verdict_writer)
        try:
            written, starved = _listen(process, verdict_reader, started + timeout, timeout)
        finally:
            # Whatever way this is left: nothing of the program's process group stays behind.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        written += _drain(verdict_reader)
    finally:
        for descriptor in (nonce_reader, nonce_writer, verdict_reader):
            os.close(descriptor)
    outcome, detail = _judge(written, nonce, code, timed_out=starved is not None)
    return Execution(outcome, detail, time.monotonic() - started, starved=bool(starved))


def _command(program: Path, nonce_reader: int, verdict_writer: int, timeout: float) -> list[str]:
    limits = {
        # The wall clock ends a program of one thread first; this one ends a program of many.
        resource.RLIMIT_CPU: math.ceil(timeout) + 1,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    return [
        sys.executable,
        # -I but for its -E, which would ignore PYTHONHASHSEED; the environment is ours, with nothing else to ignore.
        *("-P", "-s", "-S", "-B"),
        str(RUNNER),
        str(program),
        str(nonce_reader),
        str(verdict_writer),
        str(os.getpid()),
        *(f"{number}={value}" for number, value in limits.items()),
    ]


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",  # a set's order, and with it a verdict, is the same in every run
    }


def _listen(
    process: subprocess.Popen[bytes], verdict_reader: int, deadline: float, timeout: float
) -> tuple[bytes, bool | None]:
    """Wait for the end of the process. Returns what it wrote and, if time ran out, whether it was starved (else None).

    It is left uncollected: until that is done its number, by which its process group is killed, is nobody else's.
    """
    written = b""
    poller = select.poll()
    poller.register(verdict_reader, select.POLLIN)
    listening = True
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return written, _processor_seconds(process.pid) < 0.8 * timeout
        if not listening:
            # It is about to end; or it has closed its descriptors, or said too much, and lives on.
            time.sleep(0.002)
        elif poller.poll(1000 * min(remaining, POLL_SECONDS)):
            part = os.read(verdict_reader, VERDICT_BYTES)
            written += part
            listening = bool(part) and len(written) < VERDICT_BYTES
    return written, None


def _drain(verdict_reader: int) -> bytes:
    """Return what is left in the pipe; a process that escaped may still hold its other end, so never wait."""
    os.set_blocking(verdict_reader, False)
    try:
        return os.read(verdict_reader, VERDICT_BYTES)
    except BlockingIOError:
        return b""


def _processor_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return math.inf  # it has just ended by itself
    return times.user + times.system


def _judge(written: bytes, nonce: bytes, code: int, *, timed_out: bool) -> tuple[str, str]:
    """Return outcome and detail. `code` is the exit code, or a signal's number below zero."""
    head, _, verdict = written.partition(b"\n")
    if head != b"started":
        how = "in time" if timed_out else f"(exit code {code})"
        return "harness_error", f"the runner did not start {how}"
    if timed_out or code == -signal.SIGXCPU:
        return "timeout", ""
    if code < 0:
        return "killed", signal.Signals(-code).name
    if code == 0 and verdict == nonce:
        return "passed", ""
    outcome, _, detail = verdict.decode("ascii", "replace").strip().partition(" ")
    if outcome in {"failed", "exception", "syntax_error", "memory"}:
        return outcome, detail
    return "failed", "left before the end of its tests"

"""A process that has loaded what jobs import, and forks one for each: `python -m harness.executors._fork_server SOCKET MODULE...`.

It is told by messages on a socket, each a JSON object (`harness.executors._warm` is the other end):

    {"do": "start", "id", "spec", "environment"} with three descriptors (log, progress, parent): fork a job
    {"do": "signal", "id", "number"}: send a signal to a job's process group
    {"do": "serve", "modules", "environment"} with one descriptor: fork a server that loads more modules; it is told by that socket

and says, by itself: {"ready": true}, or {"unfit": why} where it cannot fork safely; {"id", "pid"} and {"id", "status"} of a job
that began and ended (as of `os.waitpid`), {"id", "error"} of one that could not be forked.

It ends when the other end of the socket does, and takes its jobs with it. A job is what it would be in a process of its own: session,
descriptors, environment, `__main__`, random state; `_become_job` says what a fork would else inherit.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.jobs import __main__ as jobs
from harness.jobs.preload import preload

MESSAGE = 2**16  # bytes of a message at most
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h; not inherited by what is forked
# Memory allocators that are made for a fork: they stop their thread before it.
_HARMLESS_THREADS = {"jemalloc_bg_thd"}


def main(descriptor: int, modules: Sequence[str]) -> None:
    """Load modules and serve until the other end is closed."""
    serve(socket.socket(fileno=descriptor), modules)


def _is_gone(channel: socket.socket) -> bool:
    """Whether the other end of a socket is closed."""
    try:
        return not channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def serve(channel: socket.socket, modules: Sequence[str]) -> None:
    """Load modules, then do what messages say; end with the process that started this one also while modules are loaded."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if _is_gone(channel):  # it died before that was said
        return
    try:
        preload(modules)
    except Exception as error:  # whatever a library raises as it is imported: jobs find out by themselves
        traceback.print_exc()
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        _send(channel, unfit=f"a library cannot be imported ({reason})")
        return
    if danger := unfit():
        _send(channel, unfit=danger)
        return
    gc.collect()
    gc.freeze()  # the collector would write to every page that the jobs share
    _send(channel, ready=True)
    _Server(channel).run()


def unfit() -> str | None:
    """Why this process cannot be forked safely: a lock that another thread holds stays locked in the child for ever."""
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:
        return f"threads were started by an import: {', '.join(threads)}"
    names = [(task / "comm").read_text(encoding="utf-8").strip() for task in Path("/proc/self/task").iterdir()]
    own = Path(f"/proc/self/task/{os.getpid()}/comm").read_text(encoding="utf-8").strip()
    names.remove(own)
    if unknown := sorted(set(names) - _HARMLESS_THREADS):
        return f"threads were started by an import: {', '.join(unknown)}"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA was initialised by an import"
    return None


class _Server:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._jobs: dict[int, str] = {}  # pid -> id
        self._servers: set[int] = set()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that the descriptor below hears of it
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)

    def run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._channel:
                        if not self._hear(selector):
                            return
                    else:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake_read, 4096)
                self._reap()

    def _hear(self, selector: selectors.BaseSelector) -> bool:
        """Do what one message says; False at the end of messages."""
        content, descriptors, _, _ = socket.recv_fds(self._channel, MESSAGE, 8)
        if not content:
            for pid in [*self._jobs, *self._servers]:
                _signal_group(pid, signal.SIGKILL)
            return False
        message = json.loads(content)
        try:
            if message["do"] == "start":
                self._start(message, descriptors, selector)
            elif message["do"] == "serve":
                self._serve(message, descriptors[0], selector)
            else:
                for pid, job in self._jobs.items():
                    if job == message["id"]:
                        _signal_group(pid, message["number"])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _start(self, message: Mapping[str, Any], descriptors: Sequence[int], selector: selectors.BaseSelector) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as error:
            _send(self._channel, id=message["id"], error=str(error))
            return
        if pid == 0:
            self._forget(selector)
            _end(_run_job, message, descriptors)
        self._jobs[pid] = message["id"]
        _send(self._channel, id=message["id"], pid=pid)

    def _serve(self, message: Mapping[str, Any], descriptor: int, selector: selectors.BaseSelector) -> None:
        channel = socket.socket(fileno=os.dup(descriptor))
        pid = os.fork()
        if pid == 0:
            self._forget(selector)
            os.close(descriptor)
            os.setsid()
            os.environ.update(message["environment"])
            _end(serve, channel, message["modules"])
        channel.close()
        self._servers.add(pid)

    def _forget(self, selector: selectors.BaseSelector) -> None:
        """Leave nothing of the server in a process that was forked from it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        selector.close()
        self._channel.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _reap(self) -> None:
        for pid in [*self._jobs, *self._servers]:
            found, status = os.waitpid(pid, os.WNOHANG)
            if found and pid in self._jobs:
                _send(self._channel, id=self._jobs.pop(pid), status=status)
            self._servers.discard(found)


def _run_job(message: Mapping[str, Any], descriptors: Sequence[int]) -> int:
    _become_job(message, descriptors)
    sys.argv = [str(jobs.__file__), message["spec"]]
    sys.modules["__main__"] = jobs  # what a process that the job spawns reads again
    return jobs.main(message["spec"])


def _become_job(message: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    os.setsid()
    log, progress, parent = descriptors
    os.dup2(log, 1)  # standard input is the null device already
    os.dup2(log, 2)
    os.close(log)
    for name, value in message["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    os.environ[message["progress"]], os.environ[message["parent"]] = str(progress), str(parent)
    if "numpy" in sys.modules:
        import numpy

        numpy.random.seed()  # noqa: NPY002 - every job's global state is another, as in a new process; Python's own sees to itself
    if "threadpoolctl" in sys.modules or "torch" in sys.modules:
        from threadpoolctl import threadpool_limits

        # The server has one thread for OpenBLAS, which would start the others as it is loaded.
        threadpool_limits(int(os.environ["OMP_NUM_THREADS"]), user_api="blas")


def _end(function: Any, *arguments: Any) -> None:
    """Run a function as the rest of this process, which ends with the exit code that it returns."""
    code = 1
    try:
        code = function(*arguments) or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        # As at the end of any process, but for the time that it takes to take all modules apart.
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _signal_group(pid: int, number: int) -> None:
    """Send a signal to a job that has not been waited for: to its group, or to it alone before it has made one."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)


def _send(channel: socket.socket, **message: Any) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the run is gone: the next read says so
        channel.send(json.dumps(message).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

"""The first process inside the sandbox: it starts the program and its tests, watches both, and tells how they ended.

A script for a fresh interpreter (`python -P -s -S -B supervisor.py`), never imported by the harness. It stands in every kind of
isolation alike and trusts nothing that the program can reach.

Standard input brings frames: the limits, the program, its tests, the nonce. Each is read only when what must not see it has been
forked: the program's process has neither tests nor nonce in its memory, the tests' process not the nonce. After that standard
input is a lifeline: when it closes, nobody waits for the verdict any more, and everything here ends.

Standard output takes a line "started" once the limits hold, and then one line of JSON with the nonce and the verdict.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from itertools import pairwise

# -P keeps the script's own folder off the path; the program is not to find these modules either.
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is slow to import
import candidate
import checker
from channel import receive
from processes import Tree

TYPE_CHECKING = False  # as mypy knows it: `typing` takes a third of the time that everything else takes to import
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

del sys.path[0]
for name in ("candidate", "channel", "checker", "processes"):
    del sys.modules[name]

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.02
WATCH_SECONDS = 0.05


def main() -> None:
    """Run one program and report."""
    settings = json.loads(receive(0))
    # Not dumpable: no process of the same user reads this one's memory or descriptors, nor those of what it forks.
    for option, argument in ((PR_SET_NO_NEW_PRIVS, 1), (PR_SET_DUMPABLE, 0), (PR_SET_CHILD_SUBREAPER, 1)):
        prctl(option, argument)
    run = Run(settings)
    run.start()
    outcome, detail = run.watch()
    seconds = time.monotonic() - run.started
    starved = outcome == "timeout" and run.starved(min(seconds, run.timeout))
    nonce = receive(0).decode()
    said = {"nonce": nonce, "outcome": outcome, "detail": detail, "seconds": round(seconds, 4), "starved": starved}
    os.write(1, json.dumps(said).encode() + b"\n")
    run.tree.kill()


class Run:
    """One program and its tests, as two processes."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.limits = settings["limits"]
        self.variables = set(settings["variables"])
        self.memory: int = settings["memory"]
        self.timeout: float = settings["seconds"]
        self.tree = Tree()
        self.statuses: dict[int, int] = {}
        self.said = b""
        self.closed = False

    def start(self) -> None:
        """Fork the program's process, then the tests'; the order is what keeps the tests out of the first."""
        source = receive(0).decode("utf-8", "surrogatepass")
        request_reader, request_writer = os.pipe()
        reply_reader, reply_writer = os.pipe()
        self.candidate = self._fork((request_reader, reply_writer), lambda: serve(source, request_reader, reply_writer))
        os.close(request_reader)
        os.close(reply_writer)
        tests = json.loads(receive(0))
        self.verdict, verdict_writer = os.pipe()

        def check() -> None:
            seed_random(tests["context"] + tests["tests"])
            said = checker.check(**tests, requests=request_writer, replies=reply_reader)
            os.write(verdict_writer, json.dumps(said).encode() + b"\n")

        self.checker = self._fork((request_writer, reply_reader, verdict_writer), check)
        for descriptor in (request_writer, reply_reader, verdict_writer):
            os.close(descriptor)
        self.started = time.monotonic()
        os.write(1, b"started\n")

    def watch(self) -> tuple[str, str]:
        """Wait for the end, whoever brings it, and return outcome and detail."""
        poller = select.poll()
        poller.register(self.verdict, select.POLLIN)
        poller.register(0, 0)  # only that the other end closed; the nonce waits there
        watched = self.started
        while True:
            now = time.monotonic()
            remaining = self.started + self.timeout - now
            if remaining <= 0:
                return "timeout", ""
            for descriptor, event in poller.poll(1000 * min(remaining, POLL_SECONDS)):
                if descriptor == 0 and event & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                    self.tree.kill()
                    os._exit(1)
                if descriptor == self.verdict and not self._listen():
                    poller.unregister(self.verdict)
            self._reap()
            if ended := self._ended():
                return ended
            if now - watched > WATCH_SECONDS:
                watched = now
                if self.tree.memory() > self.memory:
                    return "memory", "all its processes together"

    def _listen(self) -> bool:
        part = os.read(self.verdict, 4096)
        self.said += part
        self.closed = not part
        return bool(part)

    def _ended(self) -> tuple[str, str] | None:
        """The verdict; or what became of the process that is to be blamed for there being none."""
        if self.said.endswith(b"\n"):
            said = json.loads(self.said)
            if said["outcome"] != "gone":
                return said["outcome"], said["detail"]
            # It may have closed its pipes and live on: then it has until its time is up.
            return self._fate(self.candidate, "left before the end of its tests", said["detail"])
        return self._fate(self.checker, "the tests left before their end", "") if self.closed else None

    def _fate(self, pid: int, left: str, remark: str) -> tuple[str, str] | None:
        if pid not in self.statuses:
            return None
        code = os.waitstatus_to_exitcode(self.statuses[pid])
        if code == -signal.SIGXCPU:
            return "timeout", "processor time"
        if code < 0:
            return "killed", signal.Signals(-code).name
        return "failed", f"{left} (exit code {code})"

    def _reap(self) -> None:
        """Collect what ended; orphans come to this process too."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                self.statuses[ended[0]] = ended[1]

    def starved(self, seconds: float) -> bool:
        """Whether the program ran out of time after so many seconds because others had the processor."""
        ran, waited = self.tree.processor_seconds()
        return ran < 0.8 * seconds and waited > 0.1 * seconds

    def _fork(self, keep: tuple[int, ...], body: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            self._enter(keep)
            body()
        finally:
            os._exit(0)  # threads left alive and functions registered for the exit do not run

    def _enter(self, keep: tuple[int, ...]) -> None:
        """Become a process of the sandbox: own session, nothing open but `keep`, limits."""
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for variable in set(os.environ) - self.variables:  # bwrap and containers add some of their own
            del os.environ[variable]
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        edges = [2, *sorted(keep), os.sysconf("SC_OPEN_MAX")]
        for low, high in pairwise(edges):
            os.closerange(low + 1, high)
        for number, value in self.limits.items():
            _, most = resource.getrlimit(int(number))
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(int(number), (value, value))


def serve(source: str, requests: int, replies: int) -> None:
    """The program's process."""
    prctl(PR_SET_DUMPABLE, 1)
    # Where the machine runs out of memory, this goes first and not the harness. There may be no /proc in here.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
        file.write("1000")
    sys.argv[:] = [""]
    seed_random(source)
    candidate.serve(source, requests, replies)


def seed_random(source: str) -> None:
    """The same random numbers in every run; the import is left out where it is not needed."""
    if "random" in source:
        import random

        random.seed(0)


def prctl(option: int, argument: int) -> None:
    """Call prctl; OSError where the kernel refuses."""
    if LIBC.prctl(option, argument, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


LIBC = ctypes.CDLL(None, use_errno=True)

if __name__ == "__main__":
    main()

"""The processes below the supervisor: what memory and processor time they take, and their end."""

import contextlib
import os
import signal
import time

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Tree:
    """All processes but this one that it can see if it is the first of its namespace, and else its descendants."""

    def __init__(self) -> None:
        self._first = os.getpid() == 1

    def memory(self) -> int:
        """Bytes that the processes hold for themselves. Pages still shared after a fork count in each."""
        held = (_read(f"/proc/{pid}/statm").split() for pid in self.pids())
        return sum((int(fields[1]) - int(fields[2])) * _PAGE for fields in held if fields)

    def processor_seconds(self) -> tuple[float, float]:
        """Seconds that the processes ran, and that they were ready to run and had to wait."""
        ran = waited = 0
        for pid in self.pids():
            for thread in _names(f"/proc/{pid}/task"):
                if fields := _read(f"/proc/{pid}/task/{thread}/schedstat").split():
                    ran, waited = ran + int(fields[0]), waited + int(fields[1])
        return ran / 1e9, waited / 1e9

    def kill(self) -> None:
        """Kill and collect them all."""
        if self._first:
            return  # the kernel does it when this process ends
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            time.sleep(0.001)

    def pids(self) -> list[int]:
        """Return the processes; none where there is no /proc."""
        seen = [int(name) for name in _names("/proc") if name.isdigit()]
        if self._first:
            return [pid for pid in seen if pid != 1]
        parents = {pid: _parent(pid) for pid in seen}
        below = {os.getpid()}
        found: list[int] = []
        while new := [pid for pid, parent in parents.items() if parent in below and pid not in below]:
            below.update(new)
            found += new
        return found


def _parent(pid: int) -> int:
    # The name in parentheses may hold anything.
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return file.read()
    except OSError:  # it has just ended
        return b""

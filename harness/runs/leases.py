"""Leases: a job belongs to one process, on disks that several machines share and where the system's locks do not reach.

    DIR/.harness/leases/<job>/<number>    one JSON object: owner, host, pid, boot, seconds, beat, state

- Files are numbered, and the highest number counts. A number is taken by O_EXCL, which the server of a network file system decides,
  so that one of many wins. Numbers are used once and files are never removed: who looks at an old one cannot take a newer one away.
- The holder writes a growing `beat` into its own open file, never by name, so that it cannot write into another's.
- Who waits judges by its own clock alone: the holder is dead when its file has stayed the same for `seconds` while it was looked at.
  No two clocks are compared. On the same machine a lock of the system on the file tells sooner.
- The holder's deadline is shorter. One that could not renew (suspended, or cut off from the disk) ends before it writes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import platform
import secrets
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from dskd.errors import InputError
from harness.runs.late_files import look_again

SECONDS = "HARNESS_LEASE_SECONDS"  # of the environment: after so long without a beat a holder counts as dead
_USUAL_SECONDS = 30.0
_SIZE = 512  # bytes of a lease file, so that each beat replaces the one before
_HELD, _RELEASED = "held", "released"


def lease_seconds() -> float:
    """How long a holder may be silent. InputError where the environment says something else than a number."""
    text = os.environ.get(SECONDS, "")
    try:
        seconds = float(text or _USUAL_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds < 86400:
        raise InputError(f"{SECONDS}={text}: not a time; fix: give seconds, 30 for one")
    return seconds


class Lease:
    """The lease of one job.

    Args:
        folder: The folder of its files.
        on_loss: Called with the reason, from any thread, when the lease is found lost; it must end this process.
        seconds: After so long without a beat others count this holder as dead; each lease says its own.
    """

    def __init__(self, folder: Path, on_loss: Callable[[str], None], seconds: float | None = None) -> None:
        self._folder, self._on_loss = folder, on_loss
        self._seconds = lease_seconds() if seconds is None else seconds
        self._pause = self._seconds / 30
        self._owner = secrets.token_hex(16)
        self._number = 0  # of our file; 0 while we hold none
        self._seen: tuple[int, bytes | None] | None = None  # the last look at the holder
        self._looked, self._quiet = 0.0, 0.0

    def acquire(self, waiting: Callable[[str], None] = lambda _holder: None) -> int:
        """Wait until the lease is ours. `waiting` is called with who holds it at each look in vain; what it raises ends the waiting.

        Returns:
            How many have held it before.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        while not self._try():
            if self._seen is not None:
                waiting(_holder_in(self._seen[1]))
            time.sleep(self._pause)
        return self._number - 1

    def _try(self) -> bool:
        head = self._head()
        if head and not self._is_over(head):
            return False
        if not self._create(head + 1):
            return False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="lease")
        self._thread.start()
        self._before = _on_continue(self.check)
        return True

    def _head(self) -> int:
        look_again(self._folder)
        return max((int(path.name) for path in self._folder.iterdir() if path.name.isdigit()), default=0)

    def _path(self, number: int) -> Path:
        return self._folder / str(number)

    def _is_over(self, number: int) -> bool:
        """Whether this lease was given back, or its holder is dead as far as we have seen."""
        content = _read(self._path(number))
        now = time.monotonic()
        if (number, content) == self._seen:
            # A waiting process may have been suspended too: what passed while it did not look says nothing.
            self._quiet += min(now - self._looked, 2 * self._pause)
        else:
            self._seen, self._quiet = (number, content), 0.0
        self._looked = now
        record = _parse(content)
        if record.get("state") == _RELEASED:
            return True
        seconds = float(record.get("seconds", self._seconds))
        if self._quiet >= seconds:
            return True
        here = bool(record.get("boot")) and record["boot"] == _boot()
        return here and self._quiet >= seconds / 5 and not _is_locked(self._path(number))

    def _create(self, number: int) -> bool:
        """Take a number, if nobody has it."""
        started = _since_boot()
        try:
            descriptor = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        self._descriptor, self._number, self._process, self._beat = descriptor, number, os.getpid(), 0
        self._locked = _lock(descriptor, fcntl.LOCK_EX)
        self._renewed = started
        try:
            self._write(_HELD)
        except BaseException:
            self._forget()
            raise
        if self._loss():  # read back: it took us so long that another has it by now, or the file is gone
            self._forget()
        return bool(self._number)

    def _write(self, state: str) -> None:
        """Write the file anew. The deadline counts from before: what others see is newer."""
        moment = _since_boot()
        record = {
            "owner": self._owner,
            "host": platform.node()[:64],
            "pid": self._process,
            "boot": _boot() if self._locked else "",
            "seconds": self._seconds,
            "beat": self._beat,
            "state": state,
        }
        os.pwrite(self._descriptor, json.dumps(record).encode().ljust(_SIZE - 1) + b"\n", 0)
        os.fsync(self._descriptor)
        self._renewed = moment

    def _keep(self) -> None:
        """Renew until it is given back; a thread does this."""
        while not self._stop.wait(self._seconds / 10):
            self.check()
            self._beat += 1
            with contextlib.suppress(OSError):  # a disk that is full or away for a moment; the deadline decides
                self._write(_HELD)

    def check(self) -> None:
        """Call `on_loss` if the lease is not ours any more; cheap enough to be asked before each file is written."""
        # A process that was forked from this one has no thread that renews; it ends with this one.
        if self._number and os.getpid() == self._process and (reason := self._loss()):
            self._on_loss(reason)

    def _loss(self) -> str:
        """Why the lease is lost; empty while it is ours."""
        silent = _since_boot() - self._renewed
        if silent > self._seconds * 2 / 3:
            return f"lost its lease: this process stood still, or could not write, for {silent:.0f} s"
        try:
            look_again(self._folder)
            # Not by content, which may be half of one beat and half of the next.
            if not os.path.samestat(self._path(self._number).stat(), os.fstat(self._descriptor)):
                return "lost its lease: the file of it is another's"
            if self._path(self._number + 1).exists():
                return f"lost its lease to {_holder_in(_read(self._path(self._number + 1)))}"
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return "lost its lease: the file of it was removed"
        return ""  # or not known, while the disk does not answer: the deadline decides

    def release(self) -> None:
        """Give it back: another may take it at once."""
        if not self._number or os.getpid() != self._process:
            return
        self._stop.set()
        self._thread.join()
        self.check()
        if self._before is not None:
            signal.signal(signal.SIGCONT, self._before)
        try:
            with contextlib.suppress(OSError):  # others will find it silent
                self._write(_RELEASED)
        finally:
            self._forget()

    def _forget(self) -> None:
        self._number = 0
        os.close(self._descriptor)


_Handler = Callable[[int, FrameType | None], Any] | int | None


def _on_continue(check: Callable[[], None]) -> _Handler:
    """Have a process that goes on after it was suspended check first of all, before its next line; what was done before.

    The thread that renews would find out as well, though perhaps after a file was written. Signals are the main thread's.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    before = signal.getsignal(signal.SIGCONT)

    def handler(number: int, frame: FrameType | None) -> None:
        check()
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGCONT, handler)
    return before


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _parse(content: bytes | None) -> dict[str, Any]:
    """What a lease says; nothing while it is being written."""
    try:
        record = json.loads(content or b"")
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _holder_in(content: bytes | None) -> str:
    record = _parse(content)
    return f"process {record['pid']} on {record['host']}" if "pid" in record else "another process"


def _lock(descriptor: int, kind: int) -> bool:
    """Whether the system's lock could be had at once; False also where a file system has none."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    """Whether a process of this machine has the file locked; the system unlocks it when that process ends."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return True
    try:
        return not _lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _boot() -> str:
    """What this machine is called until it is started again, in containers too; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _since_boot() -> float:
    """Seconds of a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

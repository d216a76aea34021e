"""The lock of a job: the system's on a local disk, a lease as well where several machines work in the run's folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from dskd.io import WRITE_CHECKS
from harness.runs.leases import Lease

_NOT_SUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_PAUSE = 0.1


class JobLock:
    """Keeps a job to one process.

    A local run locks `.harness/locks/<job>.lock` for itself alone, by the system, which unlocks it when the process dies. Processes of a
    run on several machines share that lock, so that they and a local run keep out each other, and exclude each other by a lease. A local
    run in a folder with leases takes one as well: the system's lock may not reach to another machine.

    Args:
        root: The folder of the run.
        name: Of the job, as a file's name.
        shared_disk: Whether several machines work in the folder.
        on_loss: Called with the reason when the lease is lost; it must end this process.
    """

    def __init__(self, root: Path, name: str, *, shared_disk: bool, on_loss: Callable[[str], None]) -> None:
        locks, self._leases = root / ".harness" / "locks", root / ".harness" / "leases"
        locks.mkdir(parents=True, exist_ok=True)
        self._path, self._name, self._shared_disk, self._on_loss = locks / f"{name}.lock", name, shared_disk, on_loss
        self._lease: Lease | None = None

    def acquire(self, waiting: Callable[[str], None] = lambda _holder: None) -> bool:
        """Wait until the job is ours; `waiting` is called with who has it. Returns whether it had to wait."""
        waited = False

        def wait(holder: str) -> None:
            nonlocal waited
            if not waited:
                waited = True
                waiting(holder)

        if self._shared_disk:
            self._descriptor = _share(self._path, wait)
        else:
            self._lock = FileLock(self._path)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                wait("another run")
                self._lock.acquire()
        if self._shared_disk or self._leases.is_dir():
            self._lease = Lease(self._leases / self._name, self._on_loss)
            try:
                self._lease.acquire(wait)
            except BaseException:
                self._unlock()
                raise
            WRITE_CHECKS.append(self._lease.check)
        return waited

    def release(self) -> None:
        """Let others have it."""
        if self._lease is not None:
            WRITE_CHECKS.remove(self._lease.check)
            self._lease.release()
            self._lease = None
        self._unlock()

    def _unlock(self) -> None:
        if self._shared_disk:
            os.close(self._descriptor)
        else:
            self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _share(path: Path, wait: Callable[[str], None]) -> int:
    """Open a lock file and lock it together with others who share it. Where the file system has no such locks, it is only opened."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                wait("a local run")
                time.sleep(_PAUSE)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
                return descriptor
            else:
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise

"""The lock of a job: the system's on a local disk, a lease as well where several machines work in the run's folder."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from dskd.io import WRITE_CHECKS
from harness.runs.leases import Lease

_NOT_SUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_ASK = 0.5  # seconds between two looks at a lock that another has


class _Held(Exception):
    """Another process has the job."""


def _do_not_wait(_holder: str) -> None:
    raise _Held


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

    def acquire(self, waiting: Callable[[str], None] = lambda _holder: None) -> Self:
        """Wait until the job is ours. `waiting` is called with who has it, about once a second; what it raises ends the waiting."""
        if self._shared_disk:
            self._descriptor = _share(self._path, waiting)
        else:
            self._lock = FileLock(self._path)
            _lock(self._lock, waiting)
        if self._shared_disk or self._leases.is_dir():
            self._lease = Lease(self._leases / self._name, self._on_loss)
            try:
                self._lease.acquire(waiting)
            except BaseException:
                self._lease = None
                self._unlock()
                raise
            WRITE_CHECKS.append(self._lease.check)
        return self

    def try_acquire(self) -> bool:
        """Whether the job is ours now; one that another process has, or had and did not release, is not waited for."""
        try:
            self.acquire(_do_not_wait)
        except _Held:
            return False
        return True

    @property
    def path(self) -> Path:
        """The file that the system locks."""
        return self._path

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

    @contextmanager
    def held(self) -> Iterator[None]:
        """It is ours already; let others have it at the end."""
        try:
            yield
        finally:
            self.release()

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


def _lock(lock: FileLock, waiting: Callable[[str], None]) -> None:
    pause = 0.0
    while True:
        try:
            lock.acquire(timeout=pause)
        except Timeout:
            waiting("another run")
            pause = _ASK
        else:
            return


def _share(path: Path, waiting: Callable[[str], None]) -> int:
    """Open a lock file and lock it together with others who share it. Where the file system has no such locks, it is only opened."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if _shared(descriptor) and path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # another has it, or has removed it
        waiting("a local run")
        time.sleep(_ASK)


def _shared(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    return True

"""sha256 of a file, with a bar on a terminal where it takes long."""

from __future__ import annotations

import hashlib
import io
import sys
import time
from contextlib import ExitStack
from pathlib import Path

_QUIET_SECONDS = 2.0
_PART_BYTES = 1 << 22


def hash_of(stream: io.FileIO, size: int) -> str:
    """The sha256, in hexadecimal, of what a file holds. size: of all, in bytes, for the bar."""
    digest, done, started = hashlib.sha256(), 0, time.monotonic()
    part = memoryview(bytearray(_PART_BYTES))
    with ExitStack() as shown:
        advance = None
        while count := stream.readinto(part):
            digest.update(part[:count])
            done += count
            if advance is None and time.monotonic() - started > _QUIET_SECONDS and sys.stderr.isatty():
                advance = shown.enter_context(_Bar(Path(str(stream.name)).name, size))
            if advance is not None:
                advance.update(done)
    return digest.hexdigest()


class _Bar:
    """One line on standard error, gone when the file is read."""

    def __init__(self, name: str, size: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("hashing {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(name, total=size)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._progress.stop()

    def update(self, done: int) -> None:
        self._progress.update(self._task, completed=done)

"""Files that another machine has written: a network file system may show them some seconds late."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path


class NotSeen(OSError):
    """What another machine has made is not seen on this one; it may be later. One line, with a fix."""


def look_again(folder: Path) -> None:
    """Ask the server what a folder holds: opening it makes the system drop what it remembers of it. Nothing where it is missing."""
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    except OSError:
        return


def look_again_below(folder: Path) -> None:
    """The same for a folder, those above it up to three, and all those in it."""
    for above in reversed([folder, *folder.parents][:4]):
        look_again(above)
    for below, _, _ in os.walk(folder):
        look_again(Path(below))


def wait_until(seen: Callable[[], bool], folder: Path, seconds: float, pause: float = 1.0) -> bool:
    """Wait until something in a folder is seen, at most so many seconds; whether it was."""
    deadline = time.monotonic() + seconds
    while not seen():
        if time.monotonic() >= deadline:
            return False
        time.sleep(min(pause, seconds))
        look_again_below(folder)
    return True

"""How processes of this project are started, and how they end: together with the one that started them."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# Python puts the working directory before everything else that it imports from, so that a user's `datasets.py` or `random.py`
# there would take the place of ours. With this it does not; folders of PYTHONPATH and installed packages are found as ever.
_SAFE_PATH = "PYTHONSAFEPATH"
# What a process prints may be any text, whatever the language of the machine is set to.
_UTF8 = "PYTHONUTF8"
# Both, for a process that is started on another machine.
SAFE_ENVIRONMENT = {_SAFE_PATH: "1", _UTF8: "1"}


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module by this Python, as `python -m` does, without importing from the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


def process_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process: ours, `more`, and what keeps it and all that it starts from importing out of its working folder."""
    return {**os.environ, **SAFE_ENVIRONMENT, **(more or {})}


@contextmanager
def safe_children() -> Iterator[None]:
    """Start processes of `multiprocessing` in this context: they inherit the environment of `process_environment`."""
    before = {name: os.environ.get(name) for name in (_SAFE_PATH, _UTF8)}
    os.environ.update(process_environment())
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class StopRequest:
    """Whether this process was asked to stop: by SIGTERM, by SIGUSR1, as before a time limit of Slurm, or by a file that appears.

    A second SIGTERM ends it at once. Make it in the main thread.

    Args:
        file: The file, where there may be one.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._asked = False
        self._file = file
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self._asked or (self._file is not None and self._file.exists())

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)


def exit_with_parent(*, parent: int | None = None, descriptor: int | None = None, kill_group: bool = False) -> None:
    """End this process once its parent is gone, even if the parent was ended by SIGKILL; a thread watches.

    Args:
        parent: the id of the process that started this one. It is gone when this process has another parent.
        descriptor: one end of a pipe. The parent is gone when the other end is closed.
        kill_group: also end the children of this process, if it leads a process group.
    """
    pipe = select.poll()
    if descriptor is not None:
        pipe.register(descriptor, 0)  # errors and hang-ups are always reported

    def watch() -> None:
        while parent is None or os.getppid() == parent:
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in pipe.poll(500)):
                break
        if kill_group and os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()

"""Ends a process together with the one that started it."""

from __future__ import annotations

import os
import select
import signal
import threading


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

"""Which machine a process is on, and whether a process that left its name still lives."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path
from typing import Any


@cache
def machine() -> str:
    """This machine since its last start, and the room in it where process numbers are counted (containers have their own)."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        room = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:  # no Linux
        return socket.gethostname()
    return f"{socket.gethostname()}/{start}/{room}"


def born(pid: int) -> float | None:
    """When a process of this machine began, by a clock that only serves to tell two processes with one number apart; None if it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 2)
    except psutil.NoSuchProcess:
        return None


def own() -> dict[str, Any]:
    """What tells others which process this is: host, machine, pid, born."""
    return {"host": socket.gethostname(), "machine": machine(), "pid": os.getpid(), "born": born(os.getpid())}


def lives(where: str, pid: int, since: float | None) -> bool | None:
    """Whether a process lives, by what `own` gave; None where only its own machine could say."""
    if where != machine():
        return None
    found = born(pid)
    return found is not None and (since is None or abs(found - since) < 1.0)

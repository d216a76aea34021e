"""The end of a process that must not do anything more."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

import psutil


def end_at_once() -> NoReturn:
    """End this process and all that it started, in the middle of whatever they do: nothing more is written."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()
    os._exit(1)

"""No isolation: limits, a clean environment and a private folder, and network and files within reach.

For machines where nothing isolates, and only where the user said so.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from harness.sandbox.isolation.base import INSIDE, PYTHON_OPTIONS, Isolation, Launch, environment, interpreter
from harness.sandbox.program import Limits


class LimitsOnly(Isolation):
    """What a process can be forbidden without the kernel's help."""

    name = "limits"
    isolates = False

    def missing(self) -> str | None:
        """Say whether this is no Linux: other systems lack some of the limits."""
        return None if sys.platform == "linux" else "the limits are Linux's"

    @contextmanager
    def launch(self, limits: Limits) -> Iterator[Launch]:
        """Give the command, and remove the folder at the end. All processes of the user count, so the program may start none."""
        with tempfile.TemporaryDirectory(prefix="harness-code-", ignore_cleanup_errors=True) as folder:
            argv = [interpreter(), *PYTHON_OPTIONS, str(INSIDE / "supervisor.py")]
            yield Launch(argv, environment(folder), folder, processes=0)

"""Bubblewrap (`bwrap`), for machines where it may do what a user may not: where it is installed set-user-id, or where the
distribution's security profile names it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.sandbox.isolation import base
from harness.sandbox.isolation.base import PYTHON_OPTIONS, SCRATCH, SCRIPTS, Isolation, Launch
from harness.sandbox.isolation.namespaces import allowed_processes
from harness.sandbox.program import Limits


class Bubblewrap(Isolation):
    """What `namespaces` does, done by bwrap."""

    name = "bubblewrap"

    def missing(self) -> str | None:
        """Say whether bwrap is installed, and whether this is root, of whom bwrap makes nobody else."""
        if shutil.which("bwrap") is None:
            return "bwrap is not installed"
        if os.geteuid() == 0:
            return "bwrap keeps root's user, whose processes the kernel does not count; run as another user"
        return None

    @contextmanager
    def launch(self, limits: Limits) -> Iterator[Launch]:
        """Give the command; bwrap takes everything down with the last process inside."""
        environment = base.environment(SCRATCH)
        argv = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--as-pid-1", "--die-with-parent"]
        argv += ["--new-session", "--cap-drop", "ALL", "--clearenv"]
        for name, value in environment.items():
            argv += ["--setenv", name, value]
        for path, inside in base.visible().items():
            link = Path(path).is_symlink()
            argv += ["--symlink", str(Path(path).readlink()), inside] if link else ["--ro-bind", path, inside]
        for path in base.hidden():
            argv += ["--tmpfs", path, "--remount-ro", path]
        argv += ["--dev", "/dev", "--proc", "/proc", "--size", str(limits.scratch), "--tmpfs", SCRATCH]
        argv += [] if Path(base.interpreter()).is_relative_to("/tmp") else ["--symlink", SCRATCH, "/tmp"]
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", SCRATCH]
        argv += [base.interpreter(), *PYTHON_OPTIONS, f"{SCRIPTS}/supervisor.py"]
        yield Launch(argv, environment, processes=allowed_processes(limits))

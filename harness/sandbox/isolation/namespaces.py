"""Linux namespaces, entered by `inside/enter.py`: nothing to install and no daemon, where the kernel lets users have them."""

from __future__ import annotations

import marshal
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from harness.sandbox.isolation import base
from harness.sandbox.isolation.base import INSIDE, PYTHON_OPTIONS, SCRATCH, SCRIPTS, Isolation, Launch
from harness.sandbox.program import Limits

# Supervisor, the tests' and the program's process count too.
OWN_PROCESSES = 3


class Namespaces(Isolation):
    """Namespaces of its own for each program."""

    name = "namespaces"

    def missing(self) -> str | None:
        """Say whether this is no Linux; all else shows only when it is tried."""
        return None if sys.platform == "linux" else "namespaces are Linux's"

    @contextmanager
    def launch(self, limits: Limits) -> Iterator[Launch]:
        """Give the command; the namespaces and with them all files end with their last process."""
        python = [base.interpreter(), *PYTHON_OPTIONS]
        environment = base.environment(SCRATCH)
        plan = {
            "command": [*python, f"{SCRIPTS}/supervisor.py"],
            "environment": environment,
            "visible": base.visible(),
            "hidden": base.hidden(),
            "scratch_bytes": limits.scratch,
            "scratch_files": limits.scratch_files,
        }
        argv = [*python, str(INSIDE / "enter.py"), marshal.dumps(plan).hex()]
        yield Launch(argv, environment, processes=allowed_processes(limits))


def allowed_processes(limits: Limits) -> int:
    """The limit for a user namespace of its own. Before Linux 5.14 all processes of the user counted: then none may be started."""
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    counts_apart = numbers is not None and tuple(map(int, numbers.groups())) >= (5, 14)
    return limits.processes + OWN_PROCESSES if counts_apart else 0

"""A program to run, what it may take, and how it ended."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from typing import Any

HARNESS_ERROR = "harness_error"


@dataclass(frozen=True)
class Program:
    """What a model wrote, and the tests that judge it.

    `source` runs in one process. `tests` run in another, with `functions` as stand-ins: a call goes to the first process, and what
    comes back is rebuilt from plain data. `context` is trusted code that the tests use besides (imports, helpers of the prompt);
    it runs in the tests' process, before the stand-ins take their names.

    With only a `source`, running it to its end is what passes. Then the program judges itself: use it only for what is not
    written to cheat.
    """

    source: str
    tests: str = ""
    functions: tuple[str, ...] = ()
    context: str = ""


@dataclass(frozen=True)
class Limits:
    """Limits of one program. `seconds` is wall-clock time from when it begins; sizes are in bytes.

    `memory` holds for each process and for all of them together, `processes` counts threads too, `scratch` is all that the
    program may keep in its folder.
    """

    seconds: float = 3.0
    memory: int = 1 << 30
    processes: int = 16
    file: int = 16 << 20
    open_files: int = 64
    scratch: int = 64 << 20
    scratch_files: int = 4096

    def settings(self, processes: int | None) -> dict[str, Any]:
        """Return what the supervisor reads; `processes` is the limit that it sets, None for none."""
        limits = {
            # The wall clock ends a program of one thread first; this one ends what the wall clock missed.
            resource.RLIMIT_CPU: math.ceil(self.seconds) + 1,
            resource.RLIMIT_AS: self.memory,
            resource.RLIMIT_FSIZE: self.file,
            resource.RLIMIT_NOFILE: self.open_files,
            resource.RLIMIT_CORE: 0,
        }
        if processes is not None:
            limits[resource.RLIMIT_NPROC] = processes
        return {"limits": limits, "memory": self.memory, "seconds": self.seconds}


@dataclass(frozen=True)
class Execution:
    """How a program ended.

    `outcome`: passed, failed (a test's assertion, or left before its end), exception, syntax_error, timeout, memory,
    killed (by a signal) or harness_error (the program never ran). `detail` is what was raised. `seconds` is wall-clock
    time. `starved` says that it timed out because others had the processor.
    """

    outcome: str
    detail: str
    seconds: float
    starved: bool = False

"""What one program may take."""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass
from typing import Any


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

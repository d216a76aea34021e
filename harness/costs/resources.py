"""What a job needs while it runs: cores, GPUs, memory, time. From shapes, or from `resources` of a matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

GIGABYTE = 10**9
# Of a process that has torch and transformers loaded and a small model: what a job takes where nothing is known of it.
BASE_MEMORY = int(1.5 * GIGABYTE)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one job needs on one machine.

    Attributes:
        cpus: Cores, and so threads; None for an executor's usual number, which does not depend on how many jobs it runs at once.
        gpus: GPUs; below 1 a share of one GPU with other jobs. Estimated ones are left out on a machine without any.
        gpus_required: Whether the user asked for GPUs, so that a machine without them is refused.
        memory: Bytes of main memory.
        device_memory: Bytes of each GPU; None where that is not known.
        minutes: Estimated wall time; None where that is not known.
    """

    cpus: int | None = None
    gpus: float = 0.0
    gpus_required: bool = False
    memory: int = BASE_MEMORY
    device_memory: int | None = None
    minutes: float | None = None

    def on_cpus(self) -> Resources:
        """The same on a machine without GPUs, where what would be in their memory is in main memory."""
        elsewhere = (self.device_memory or 0) * math.ceil(self.gpus)
        return replace(self, gpus=0.0, memory=self.memory + elsewhere, device_memory=None)

    def replaced(self, **changes: Any) -> Resources:
        """The same with other numbers."""
        return replace(self, **changes)

    def threads(self, usual: int) -> int:
        """Cores of the job, and so its threads.

        Args:
            usual: Cores of a job that does not say, for each of its GPUs; a share of a GPU has a share of them.
        """
        if self.cpus is not None:
            return self.cpus
        return max(1, int(usual * self.gpus)) if self.gpus else usual

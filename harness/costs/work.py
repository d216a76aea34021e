"""One job of an estimate, and the GPU it is assumed to run on."""

from __future__ import annotations

from dataclasses import dataclass

UTILIZATION = 0.4
PEAK_TFLOPS = 312.0  # dense bfloat16 of an A100


@dataclass(frozen=True)
class Device:
    """A GPU: its peak performance, and the share of it that a training is assumed to reach."""

    peak_tflops: float = PEAK_TFLOPS
    utilization: float = UTILIZATION

    def hours(self, operations: float) -> float:
        """The hours that one such GPU needs."""
        return operations / (self.peak_tflops * 1e12 * self.utilization) / 3600


@dataclass(frozen=True)
class Work:
    """One piece of work."""

    kind: str  # of the step
    what: str
    steps: int | None  # of the optimizer; None for work without any
    tokens: float  # of the model that is trained, or of the teacher
    operations: float  # floating point
    bytes: float  # memory that a GPU needs
    gpu_hours: float  # on the assumed GPU
    disk_bytes: float = 0.0  # of a teacher cache

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
    """One piece of work.

    Attributes:
        kind: the kind of the step.
        what: which one, in words.
        steps: optimizer steps; None for work without any.
        tokens: of the model that is trained, or of the teacher of a cache.
        operations: floating point operations.
        bytes: memory that a GPU needs.
        gpu_hours: on the assumed GPU.
        disk_bytes: of a teacher cache.
    """

    kind: str
    what: str
    steps: int | None
    tokens: float
    operations: float
    bytes: float
    gpu_hours: float
    disk_bytes: float = 0.0

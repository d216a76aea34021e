"""What this machine has for a training: memory, room on the disk, and its speed, measured in a moment."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from harness.costs.work import UTILIZATION, Device
from harness.executors.local import default_jobs
from harness.runs.machine import available_memory

_SECONDS = 0.3  # that the speed is measured for
_PROCESS = 2**30  # bytes of a process before it holds a model


@dataclass(frozen=True)
class Machine:
    """A machine.

    Attributes:
        device: Its GPU's name, or `cpu`.
        memory: Bytes that one job may take.
        jobs: How many run at once.
        disk: Bytes that are free here.
        tflops: Of a product of matrices, measured.
    """

    device: str
    memory: int
    jobs: int
    disk: int
    tflops: float

    @property
    def has_gpu(self) -> bool:
        """Whether trainings run on a GPU."""
        return self.device != "cpu"

    @property
    def assumed(self) -> Device:
        """What estimates assume: a training reaches a share of the measured speed."""
        return Device(self.tflops, UTILIZATION)


def look_at_machine(folder: Path = Path()) -> Machine:
    """This machine, with the disk that a folder is on."""
    import torch

    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())
    jobs, disk = default_jobs(), shutil.disk_usage(place).free
    if torch.cuda.is_available():
        about = torch.cuda.get_device_properties(0)
        return Machine(about.name, about.total_memory, jobs, disk, _measured("cuda", 4096))
    memory = max(2**28, available_memory() // jobs - _PROCESS)
    return Machine("cpu", memory, jobs, disk, _measured("cpu", 768))


def _measured(device: str, size: int) -> float:
    """TFLOP/s of products of square matrices, in the dtype that trainings use on the device."""
    import torch

    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    matrix = torch.ones(size, size, dtype=dtype, device=device)

    def product() -> None:
        torch.mm(matrix, matrix)
        if device == "cuda":
            torch.cuda.synchronize()

    product()  # the first one loads what the others use
    products, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _SECONDS:
        product()
        products += 1
    return float(f"{products * 2 * size**3 / seconds / 1e12:.2g}")

"""The GPUs of this machine that the process was given, and how a job is given some of them, without a word to CUDA itself.

CUDA must not be initialised here: processes are forked from ours, and it does not survive that.
"""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_CUDA, _HIP, _ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
_SECONDS = 30.0  # for `nvidia-smi`, which wakes up sleeping GPUs
_NAME = re.compile(r"\d+|GPU-[0-9a-fA-F-]+|MIG-[0-9a-zA-Z/-]+")
_GPU_LINE, _MIG_LINE = re.compile(r"GPU (\d+):"), re.compile(r"\s+MIG .*\(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True)
class Gpus:
    """GPUs that jobs can be given.

    Attributes:
        names: As the variable has them: indices, `GPU-…` or `MIG-…`.
        variable: The environment variable by which a process is given some of them; "" where there is none (Apple's).
        none: What the variable says to a process that is given none.
        real: Whether they exist; False for GPUs that are only counted with.
    """

    names: tuple[str, ...] = ()
    variable: str = ""
    none: str = ""
    real: bool = True

    def environment(self, devices: Sequence[int]) -> dict[str, str]:
        """What a job's environment says so that it finds these GPUs, by their numbers here, and no others."""
        if not self.variable:
            return {}
        return {self.variable: ",".join(self.names[device] for device in devices) if devices else self.none}


@dataclass(frozen=True)
class Machine:
    """Where GPUs are looked for; tests give other places."""

    devices: Path = Path("/dev")
    kfd: Path = Path("/sys/class/kfd/kfd/topology/nodes")
    nvidia_smi: Callable[[], str | None] = lambda: _nvidia_smi()
    apple: bool = sys.platform == "darwin" and platform.machine() == "arm64"


def gpus_of(environment: Mapping[str, str], pretended: int | None = None, machine: Machine | None = None) -> Gpus:
    """The GPUs that a process with this environment may use.

    Args:
        environment: A variable in it that names GPUs leaves those alone; an empty one leaves none.
        pretended: Count with so many in place of those that are found: with the first of them, or with GPUs that do not exist.
        machine: Where to look.
    """
    found = _found(environment, machine or Machine())
    if pretended is None:
        return found
    if pretended <= len(found.names):
        return Gpus(found.names[:pretended], found.variable, found.none)
    return Gpus(tuple(map(str, range(pretended))), found.variable or _CUDA, found.none, real=False)


def _found(environment: Mapping[str, str], machine: Machine) -> Gpus:
    if names := _nvidia(machine):
        return Gpus(_given(environment.get(_CUDA), names), _CUDA)
    if count := _amd(machine):
        # What ROCr hides does not exist for HIP, which counts the others from 0. HIP reads CUDA's variable too.
        visible = len(_given(environment.get(_ROCR), range(count)))
        given = environment.get(_HIP, environment.get(_CUDA))
        return Gpus(_given(given, range(visible)), _HIP, none="-1")
    return Gpus(("mps",)) if machine.apple else Gpus()


def _given(text: str | None, found: Sequence[object]) -> tuple[str, ...]:
    """The names in a variable up to the first that is none, as CUDA reads it; all GPUs where it is not set."""
    if text is None:
        return tuple(map(str, found))
    names: list[str] = []
    for name in map(str.strip, text.split(",")):
        if _NAME.fullmatch(name) is None or (name.isdigit() and int(name) >= len(found)):
            break
        if name not in names:
            names.append(name)
    return tuple(names)


def _nvidia(machine: Machine) -> list[str]:
    """Indices of NVIDIA's GPUs; of one that is cut into MIG instances the names of those, since by its index only one is found."""
    listed = machine.nvidia_smi()
    if listed is None:  # not installed, as in many containers, or without a driver
        return [str(index) for index, _ in enumerate(machine.devices.glob("nvidia[0-9]*"))]
    names: list[list[str]] = []
    for line in listed.splitlines():
        if (gpu := _GPU_LINE.match(line)) is not None:
            names.append([gpu[1]])
        elif (instance := _MIG_LINE.match(line)) is not None and names:
            whole = names[-1]
            names[-1] = [instance[1]] if whole[0].isdigit() else [*whole, instance[1]]
    return [name for each in names for name in each]


def _nvidia_smi() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _amd(machine: Machine) -> int:
    """How many GPUs the driver of ROCm has; its other nodes are processors."""
    count = 0
    for path in machine.kfd.glob("*/gpu_id"):
        with contextlib.suppress(OSError):  # of a GPU that a container was not given
            count += path.read_text(encoding="utf-8").strip() not in ("", "0")
    return count

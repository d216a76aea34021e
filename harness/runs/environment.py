"""The environment of a job: versions, device, threads and commit; and the peak memory of its process. No names of machines or people."""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import sys
from functools import cache
from pathlib import Path

from dskd.training.provenance import checkout, package_version
from harness.runs.machine import cores
from harness.runs.records import Environment, SandboxUsed

_PACKAGES = ("dskd-harness", "torch", "transformers", "vllm", "lm_eval", "tokenizers", "datasets", "accelerate", "peft")


def environment(engine: str | None = None, sandbox: SandboxUsed | None = None) -> Environment:
    """The environment of this process; `sandbox` isolated the programs that it ran."""
    commit, dirty = checkout()
    torch = sys.modules.get("torch")  # only if it is imported already: this must not cost an import
    # The vector instructions that torch uses: others round sums differently.
    vectors = torch.backends.cpu.get_cpu_capability() if torch is not None else ""
    return Environment(
        versions=versions(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else "cpu",
        threads=torch.get_num_threads() if torch is not None else int(os.environ.get("OMP_NUM_THREADS") or cores()),
        cpu=f"{_processor()} {vectors}".strip() or None,
        commit=commit,
        dirty=dirty,
        engine=engine,
        sandbox=sandbox,
    )


def versions() -> dict[str, str | None]:
    """The versions of what results may depend on; None for what is not installed."""
    return {name: package_version(name) for name in _PACKAGES}


@cache
def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return " ".join(value.split())
    return platform.processor()


def memory() -> int | None:
    """The resident memory of this process in bytes, or None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def device_memory() -> int | None:
    """The GPU memory that torch holds in this process, in bytes on all its devices; None where it holds none."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)  # torch may be half imported
    if cuda is None or not cuda.is_initialized():
        return None
    return sum(int(cuda.memory_reserved(index)) for index in range(cuda.device_count()))


def device_use() -> float | None:
    """How busy the GPUs of this process are, in percent, the mean of them; None where that is not known."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is None or not cuda.is_initialized() or importlib.util.find_spec("pynvml") is None:
        return None
    count = cuda.device_count()
    try:
        return sum(cuda.utilization(index) for index in range(count)) / count
    except RuntimeError:  # a device that does not tell, as a part of one (MIG)
        return None


def peak_memory() -> int:
    """The peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count the parent's memory at the start of this process.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return _peak(resource.RUSAGE_SELF)


def peak_memory_of_children() -> int:
    """The peak resident memory, in bytes, of any process that this one or its children started and that has ended."""
    return _peak(resource.RUSAGE_CHILDREN)


def _peak(who: int) -> int:
    peak = resource.getrusage(who).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_device_memory() -> int | None:
    """The peak GPU memory of torch in this process, in bytes; None without a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())

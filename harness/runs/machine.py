"""What of this machine the process may use: cores and main memory, within the limits of its control groups (a container, a Slurm job)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_GROUPS, _ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores() -> int:
    """The number of processor cores that this process may use; of a quota of 2.5 cores it is 2."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in control_groups() if (quota := _quota(folder)) is not None]
    return max(1, min([found, *map(math.floor, quotas)]))


def total_memory() -> int:
    """Bytes of main memory that this process and its children can have at most."""
    import psutil

    limits = [limit for folder in control_groups() if (limit := _limit(folder)) is not None]
    return min([psutil.virtual_memory().total, *limits])


def available_memory() -> int:
    """Bytes of main memory that this process and its children can still take: what is free, and what a file's cache gives back."""
    import psutil

    return max(0, min([psutil.virtual_memory().available, *map(_left, control_groups())]))


def control_groups(groups: Path = _GROUPS, root: Path = _ROOT) -> list[Path]:
    """The folders of the control groups that hold this process, from its own to the outermost that can be seen.

    Version 2 has one tree, version 1 one for each kind of limit. In a container the path that the kernel tells may be the host's;
    then the root of what is mounted is the process's own group.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [folder for line in lines for folder in _folders(line, root)]


def _folders(line: str, root: Path) -> Iterator[Path]:
    _, controllers, path = line.split(":", 2)
    tree = root / controllers if controllers else root
    if controllers and not set(controllers.split(",")) & {"cpu", "memory"}:
        return
    # A process outside of what its namespace shows has a path that begins with `..`.
    folder = tree if ".." in path else tree / path.lstrip("/")
    while True:
        if folder.is_dir():
            yield folder
        if folder == tree or tree not in folder.parents:
            return
        folder = folder.parent


def _quota(folder: Path) -> float | None:
    """Cores that a group may use; None without a limit."""
    if (text := _read(folder / "cpu.max")) is not None:
        most, each = text.split()
        return None if most == "max" else int(most) / int(each)
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota / period if quota is not None and period and quota > 0 else None


def _limit(folder: Path) -> int | None:
    """Bytes that a group may hold; None without a limit. Version 1 writes no limit as a number near 2**63."""
    limit = _number(folder / "memory.max")
    if limit is None:
        limit = _number(folder / "memory.limit_in_bytes")
    return limit if limit is not None and limit < 2**60 else None


def _left(folder: Path) -> float:
    """Bytes that a group may still take."""
    limit, used = _limit(folder), _number(folder / "memory.current")
    if used is None:
        used = _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None:
        return math.inf
    text = _read(folder / "memory.stat") or ""
    counts: Mapping[str, str] = dict(line.split(maxsplit=1) for line in text.splitlines())
    cache = int(counts.get("total_inactive_file") or counts.get("inactive_file") or 0)
    return limit - used + cache


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return None


def _number(path: Path) -> int | None:
    """A file's number; None where there is no such file, or it says `max`."""
    text = (_read(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None

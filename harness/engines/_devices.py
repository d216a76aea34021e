"""The GPUs and cores of this process, divided among processes."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch

from dskd.errors import InputError

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"


def environments(parts: int, gpus_each: int) -> list[dict[str, str]]:
    """What to set in the environment of each of so many processes: GPUs of its own, or without any its share of the cores.

    The GPUs are those that this process was given, by their names there (numbers, UUIDs, MIG instances).

    InputError where there are GPUs, and too few.
    """
    there = gpus(os.environ, torch.cuda.device_count())
    needed = parts * gpus_each
    if not there:
        return [{THREADS: str(max(1, torch.get_num_threads() // needed))} for _ in range(parts)]
    if len(there) < needed:
        raise InputError(
            f"evaluation: parts: {parts} and tensor_parallel: {gpus_each} need {needed} GPUs, and {len(there)} can be seen here; "
            f"fix: lower one of them, or give the job {needed} GPUs ({VISIBLE} says which a process sees)"
        )
    return [{VISIBLE: ",".join(there[first : first + gpus_each])} for first in range(0, needed, gpus_each)]


def gpus(environment: Mapping[str, str], count: int) -> list[str]:
    """The names of the first `count` GPUs that a process with this environment sees, as `CUDA_VISIBLE_DEVICES` takes them."""
    named = environment.get(VISIBLE)
    return named.split(",")[:count] if named else [str(number) for number in range(count)]

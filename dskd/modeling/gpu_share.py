"""A share of a GPU: a process that shares its GPU with others takes no more of its memory than is its own."""

from __future__ import annotations

import os

# An environment variable: the share of its GPU that a process has where it has none for itself.
GPU_SHARE = "HARNESS_GPU_SHARE"


def gpu_share() -> float:
    """The share of its GPU that this process has; 1 where it has whole ones."""
    return float(os.environ.get(GPU_SHARE) or 1)


def keep_to_gpu_share() -> None:
    """Let torch take no more than the share; it says that memory ran out where the process needs more."""
    share = gpu_share()
    if share == 1:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)

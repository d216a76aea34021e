"""What every job finds in its environment, wherever it runs: its threads, and that it may not use the hub."""

from __future__ import annotations

import os


def threads_of(cpus: int) -> int:
    """The threads of a job with so many cores; who has set OMP_NUM_THREADS has a reason, and it has precedence."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() else cpus


def job_environment(threads: int, *, offline: bool) -> dict[str, str]:
    """The variables of a job, beside those of who started it.

    Args:
        threads: Too many slow a small model thirty-fold, and results on a CPU depend on their number.
        offline: Whether it may not use the hub.
    """
    environment = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    if offline:
        environment |= dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
    return environment

"""How a job ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    `not_run`: something that it needs failed, or the run ended before its turn. `stopped`: it ended at a checkpoint because it was
    asked to; the same command resumes it.
    """

    status: Literal["done", "failed", "stopped", "not_run"]
    reason: str = ""
    seconds: float = 0.0

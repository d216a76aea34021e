"""Executors: where jobs run. By name: those of this package, of the entry points `harness.executors`, and `file.py:Class`.

A file `harness/executors/<name>.py` has a class `Executor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.planning.plan import PlannedJob
from harness.plugins import Plugins, modules_of


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `not_run` where something that it needs failed, or the run ended before its turn."""

    status: Literal["done", "failed", "not_run"]
    reason: str = ""
    seconds: float = 0.0


class Reporter(Protocol):
    """Hears of the jobs while they run; draws them for a person."""

    def started(self, job: PlannedJob) -> None: ...

    def progress(self, job: PlannedJob, event: Mapping[str, object]) -> None: ...

    def ended(self, job: PlannedJob, outcome: Outcome) -> None: ...


EXECUTORS = Plugins("executor", "harness.executors", lambda: modules_of(__name__, __path__), "Executor")

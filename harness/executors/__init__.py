"""Executors: where jobs run. One file each; a new one is a module here with a class `Executor`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.planning.plan import PlannedJob


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


def names() -> list[str]:
    """The executors there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> type:
    """The class of an executor."""
    return importlib.import_module(f"{__name__}.{name}").Executor

"""Executors: where jobs run. By name: those of this package, of the entry points `harness.executors`, and `file.py:Class`.

A file `harness/executors/<name>.py` has a class `Executor` that derives from `harness.scheduling.executor.BaseExecutor`.
"""

from __future__ import annotations

from harness.plugins import Plugins, modules_of

EXECUTORS = Plugins("executor", "harness.executors", lambda: modules_of(__name__, __path__), "Executor")

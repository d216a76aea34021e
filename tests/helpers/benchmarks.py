"""Benchmarks as modules, for tests of what they compute."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from helpers.paths import TESTS


def load_benchmark(name: str) -> ModuleType:
    """The script `tests/benchmarks/NAME.py` as a module."""
    spec = importlib.util.spec_from_file_location(name, TESTS / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look there
    spec.loader.exec_module(module)
    return module

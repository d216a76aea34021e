"""The distillation methods, one file each. A new file in this folder is found by itself; methods from outside are found by `get`.

From outside come the entry points of the group `dskd.methods` in installed packages, the files of the folders in DSKD_METHODS
(separated as in PATH), and what is named in full, as `package.module:Class` or `path/to/file.py:Class` (docs/own-method.md).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, SideTokens, TokenBatch, TwoPassLoss
from dskd.methods.base import (
    METHODS,
    DistillationMethod,
    DistillationOptions,
    DivergenceOptions,
    Method,
    Options,
    Requirements,
    StepStatistics,
    UsesTokenizers,
    register,
)

__all__ = [
    "METHODS",
    "DistillationMethod",
    "DistillationOptions",
    "DivergenceOptions",
    "LossTerm",
    "Method",
    "Options",
    "Requirements",
    "SideTokens",
    "StepStatistics",
    "TokenBatch",
    "TwoPassLoss",
    "UsesTokenizers",
    "get",
    "own_code",
    "register",
]

ENTRY_POINTS = "dskd.methods"


def get(name: str) -> type[Method]:
    """The method called `name`, or the class that `package.module:Class` or `path/to/file.py:Class` names; else InputError."""
    if ":" in name:
        return _from_outside(name)
    if name not in METHODS:
        raise InputError(f"methods: {name!r} is not a method; fix: use one of {', '.join(sorted(METHODS))}")
    return METHODS[name]


def own_code(name: str) -> str | None:
    """sha256 of the file of a method from outside; None for one that ships, whose code has a version."""
    method = get(name)
    if method.__module__.startswith("dskd."):
        return None
    return hashlib.sha256(Path(sys.modules[method.__module__].__file__ or "").read_bytes()).hexdigest()


def _from_outside(name: str) -> type[Method]:
    place, _, attribute = name.rpartition(":")
    try:
        module = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise InputError(f"methods: {name}: {error}; fix: install the package, or correct the name") from None
    method = getattr(module, attribute, None)
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise InputError(f"methods: {name}: no class {attribute} that is a dskd.methods.Method; fix: correct the name")
    return method


def _load_file(path: Path) -> ModuleType:
    """The module of a file outside any package, which is run once."""
    path = path.expanduser().resolve()
    name = f"dskd_method_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise InputError(f"methods: {path}: no such file; fix: correct the path")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_all() -> None:
    """Register the methods that ship, those of installed packages, and those of DSKD_METHODS."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        register(entry.load())
    for folder in filter(None, os.environ.get("DSKD_METHODS", "").split(os.pathsep)):
        for path in sorted(path for path in Path(folder).glob("*.py") if not path.name.startswith("_")):
            _load_file(path)


_load_all()

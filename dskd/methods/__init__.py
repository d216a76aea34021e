"""The distillation methods, one file each. A new file in this folder is found by itself; methods from outside are found by `get`.

From outside come the entry points of the group `dskd.methods` in installed packages, the files of the folders in DSKD_METHODS
(separated as in PATH), and what is named in full, as `package.module:Class` or `path/to/file.py:Class` (docs/own-method.md).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import pkgutil
from pathlib import Path

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
    ResponseStatistics,
    StepStatistics,
    UsesTokenizers,
    register,
)
from dskd.plugins import class_at, code_hash, load_file

__all__ = [
    "METHODS",
    "DistillationMethod",
    "DistillationOptions",
    "DivergenceOptions",
    "LossTerm",
    "Method",
    "Options",
    "Requirements",
    "ResponseStatistics",
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
        method = class_at(name)
        if not (isinstance(method, type) and issubclass(method, Method)):
            raise InputError(f"methods: {name}: is no dskd.methods.Method; fix: name a class that is one")
        return method
    if name not in METHODS:
        raise InputError(f"methods: {name!r} is not a method; fix: use one of {', '.join(sorted(METHODS))}")
    return METHODS[name]


def own_code(name: str) -> str | None:
    """sha256 of the file of a method from outside; None for one that ships, whose code has a version."""
    method = get(name)
    return None if method.__module__.startswith("dskd.") else code_hash(method)


def _load_all() -> None:
    """Register the methods that ship, those of installed packages, and those of DSKD_METHODS."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        register(entry.load())
    for folder in filter(None, os.environ.get("DSKD_METHODS", "").split(os.pathsep)):
        for path in sorted(path for path in Path(folder).expanduser().glob("*.py") if not path.name.startswith("_")):
            load_file(path)


_load_all()

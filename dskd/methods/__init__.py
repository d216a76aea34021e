"""The distillation methods, one file each. A new file in this folder is found by itself, as is one in a folder of DSKD_METHODS."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
from pathlib import Path

from dskd.errors import InputError
from dskd.methods.base import (
    METHODS,
    DistillationOptions,
    DivergenceOptions,
    LabelledTokens,
    Method,
    Options,
    Term,
    register,
)

__all__ = [
    "METHODS",
    "DistillationOptions",
    "DivergenceOptions",
    "LabelledTokens",
    "Method",
    "Options",
    "Term",
    "get",
    "own_code",
    "register",
]

# Folders with methods of one's own, separated as in PATH (docs/own-method.md).
__path__ += [folder for folder in os.environ.get("DSKD_METHODS", "").split(os.pathsep) if folder]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def get(name: str) -> type[Method]:
    """The method called `name`. Raises InputError that lists the known names."""
    if name not in METHODS:
        raise InputError(f"methods: {name!r} is not a method; fix: use one of {', '.join(sorted(METHODS))}")
    return METHODS[name]


def own_code(name: str) -> str | None:
    """sha256 of the file of a method from a folder of DSKD_METHODS; None for one that ships, whose code has a version."""
    file = Path(importlib.import_module(get(name).__module__).__file__ or "")
    return None if file.parent == Path(__file__).parent else hashlib.sha256(file.read_bytes()).hexdigest()

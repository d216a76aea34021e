"""The distillation methods, one file each. A new file in this folder is found by itself."""

from __future__ import annotations

import importlib
import pkgutil

from dskd.errors import InputError
from dskd.methods.base import METHODS, DistillationOptions, LabelledTokens, Method, Options, Term, register

__all__ = ["METHODS", "DistillationOptions", "LabelledTokens", "Method", "Options", "Term", "get", "register"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def get(name: str) -> type[Method]:
    """The method called `name`. Raises InputError that lists the known names."""
    if name not in METHODS:
        raise InputError(f"methods: {name!r} is not a method; fix: use one of {', '.join(sorted(METHODS))}")
    return METHODS[name]

"""Classes by reference, from inside and outside of the package: `package.module:Class` or `path/to/file.py:Class`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

from dskd.errors import InputError


@cache
def class_at(reference: str) -> Any:
    """The class that a reference names.

    Args:
        reference: `package.module:Class`, or `file.py:Class` for a file outside of any package.

    Raises:
        InputError: where there is no such file, module or class.
    """
    place, _, name = reference.rpartition(":")
    module = _module_of_file(Path(place).resolve()) if place.endswith(".py") else _module(reference, place)
    if not hasattr(module, name):
        raise InputError(f"{place}: has no class '{name}'; fix: correct the name in '{reference}'")
    return getattr(module, name)


def _module(reference: str, name: str) -> Any:
    if not name:
        raise InputError(f"'{reference}': is no reference to a class; fix: write package.module:Class or file.py:Class")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name}: no such module ({error}); fix: install its package, or correct '{reference}'"
        ) from None


def _module_of_file(path: Path) -> Any:
    name = f"_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None or not path.is_file():
            raise InputError(f"{path}: no such file; fix: correct the path")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)  # before it runs: its classes look it up
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            first = str(error).partition("\n")[0]
            raise InputError(f"{path}: cannot be loaded ({type(error).__name__}: {first}); fix: correct it") from error
    return sys.modules[name]


def reference_to(cls: type) -> str:
    """The reference by which `class_at` finds a class again, in this process or another."""
    module = sys.modules[cls.__module__]
    outside = cls.__module__.startswith("_plugin_")
    return f"{module.__file__ if outside else cls.__module__}:{cls.__qualname__}"

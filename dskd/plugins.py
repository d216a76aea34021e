"""Python files and classes by reference: `package.module:Class`, or `path/to/file.py:Class`, which needs no installation."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from dskd.errors import InputError

_FILE_PREFIX = "dskd_file_"  # of modules that are files outside of any package


def load_file(path: Path) -> ModuleType:
    """Import a Python file by its path, once. InputError where there is none."""
    path = path.resolve()
    name = f"{_FILE_PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    if not path.is_file():
        raise InputError(f"{path}: no such file; fix: correct the path")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        first = str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be loaded ({type(error).__name__}: {first}); fix: correct it") from error
    return module


def class_at(reference: str) -> Any:
    """Return the class that `package.module:Class` or `path/to/file.py:Class` names. InputError where there is none."""
    place, _, name = reference.rpartition(":")
    if (own := in_file(reference)) is not None:
        module = load_file(own[0])
    elif not place:
        raise InputError(f"'{reference}': is no reference to a class; fix: write package.module:Class or file.py:Class")
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            raise InputError(f"{place}: {error}; fix: install its package, or correct '{reference}'") from None
    if not hasattr(module, name):
        raise InputError(f"{place}: has no class '{name}'; fix: correct the name in '{reference}'")
    return getattr(module, name)


def reference_to(cls: type) -> str:
    """Return the reference by which `class_at` finds a class again, in this process or another."""
    return f"{inspect.getfile(cls) if is_from_file(cls) else cls.__module__}:{cls.__qualname__}"


def is_from_file(cls: type) -> bool:
    """Whether a class was loaded from a file outside of any package."""
    return cls.__module__.startswith(_FILE_PREFIX)


def code_hash(cls: type) -> str:
    """Return the sha256 of the file that defines a class: the part of an identity that stands for code without a version."""
    return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()


def in_file(name: str) -> tuple[Path, str] | None:
    """Return the file and the class of `path/to/file.py:Class`; None for any other name."""
    path, separator, attribute = name.rpartition(":")
    return (Path(path).expanduser(), attribute) if separator and path.endswith(".py") else None

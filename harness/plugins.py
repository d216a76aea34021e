"""Finds things of one kind by name: those that ship, those of installed packages, and one in a file of your own.

An installed package adds to a kind by an entry point, for example in its pyproject.toml:

    [project.entry-points."harness.engines"]
    mine = "my_package.engine:MyEngine"

A class in a file needs no installation; its name is `path/to/file.py:MyEngine`.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from dskd.errors import InputError
from harness.suggestions import did_you_mean

_FILE_PREFIX = "harness_file_"  # of modules that are files outside of any package


@dataclass(frozen=True)
class Plugins:
    """The things of one kind.

    Attributes:
        kind: What they are called in messages.
        group: The group of entry points that adds to them.
        shipped: Gives their modules by name: a dotted name or a file. They have precedence over entry points.
        exports: The name of what a shipped module exports.
    """

    kind: str
    group: str
    shipped: Callable[[], Mapping[str, str | Path]]
    exports: str

    def names(self) -> list[str]:
        """Return all names, sorted; those of files are not among them."""
        return sorted({*self.shipped(), *(entry.name for entry in entry_points(group=self.group))})

    def check(self, name: str, where: str | None = None) -> None:
        """InputError for a name that does not exist, with the nearest one that does. Imports nothing.

        Args:
            where: What the message begins with, `--engine` for one; the kind unless given.
        """
        where = f"{where or self.kind} {name}"
        if (own := _in_file(name)) is not None:
            if not own[0].is_file():
                raise InputError(f"{where}: no such file; fix: write path/to/file.py:Class")
        elif name not in self.names():
            raise InputError(f"{where}: no such {self.kind}{did_you_mean(name, self.names())}")

    def load(self, name: str) -> Any:
        """Return what a name stands for. InputError for one that does not exist or cannot be imported."""
        self.check(name)
        if (own := _in_file(name)) is not None:
            return self._attribute(name, load_file(own[0]), own[1])
        if (module := self.shipped().get(name)) is not None:
            loaded = load_file(module) if isinstance(module, Path) else importlib.import_module(module)
            return self._attribute(name, loaded, self.exports)
        (entry, *_) = entry_points(group=self.group, name=name)
        try:
            return entry.load()
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"{self.kind} {name}: {entry.value} cannot be imported ({error}); fix: repair the package that names it"
            ) from error

    def _attribute(self, name: str, module: ModuleType, attribute: str) -> Any:
        if not hasattr(module, attribute):
            raise InputError(f"{self.kind} {name}: {module.__file__} has no {attribute}; fix: define it there")
        return getattr(module, attribute)


def modules_of(package: str, path: Iterable[str]) -> dict[str, str]:
    """Return the modules of a package by name, without helpers: `base`, and what begins with an underscore."""
    names = (module.name for module in iter_modules(path))
    return {name: f"{package}.{name}" for name in names if name != "base" and not name.startswith("_")}


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
    if (own := _in_file(reference)) is not None:
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
    outside = cls.__module__.startswith(_FILE_PREFIX)
    return f"{sys.modules[cls.__module__].__file__ if outside else cls.__module__}:{cls.__qualname__}"


def own_code(cls: type) -> str | None:
    """Return the sha256 of the file of a class that is outside of any package; None for any other, whose code has a version."""
    if not cls.__module__.startswith(_FILE_PREFIX):
        return None
    return hashlib.sha256(Path(str(sys.modules[cls.__module__].__file__)).read_bytes()).hexdigest()


def _in_file(name: str) -> tuple[Path, str] | None:
    """The file and the class of `file.py:Class`."""
    path, separator, attribute = name.rpartition(":")
    return (Path(path).expanduser(), attribute) if separator and path.endswith(".py") else None

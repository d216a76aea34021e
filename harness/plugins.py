"""Finds things of one kind by name: those that ship, those of installed packages, and one in a file of your own.

An installed package adds to a kind by an entry point, for example in its pyproject.toml:

    [project.entry-points."harness.engines"]
    mine = "my_package.engine:MyEngine"

A class in a file needs no installation; its name is `path/to/file.py:MyEngine`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from dskd.errors import InputError
from dskd.plugins import in_file, load_file
from harness.suggestions import did_you_mean


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
        if (own := in_file(name)) is not None:
            if not own[0].is_file():
                raise InputError(f"{where}: no such file; fix: write path/to/file.py:Class")
        elif name not in self.names():
            raise InputError(f"{where}: no such {self.kind}{did_you_mean(name, self.names())}")

    def load(self, name: str) -> Any:
        """Return what a name stands for. InputError for one that does not exist or cannot be imported."""
        self.check(name)
        if (own := in_file(name)) is not None:
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

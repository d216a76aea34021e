"""The text of a matrix: its file with those that it extends, keys under their present names, and `${VARIABLES}`."""

from __future__ import annotations

import logging
import operator
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from harness.config.explain import dotted, shortened
from harness.config.settings import RENAMED, merge_training
from harness.config.strict_yaml import read_mapping
from harness.suggestions import did_you_mean

SHIPPED = Path(__file__).parent / "matrices"
log = logging.getLogger(__name__)

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
# Keys whose entries are joined with those of the matrix that is extended. All others are replaced, but for what is each one's own.
_JOINED: dict[str, Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]] = {
    **dict.fromkeys(
        ("data", "models", "groups", "axes", "methods", "launch", "resources", "tasks", "evaluation"), operator.or_
    ),
    "training": merge_training,
}
_NOT_INHERITED = {"name", "description"}


def shipped_matrices() -> dict[str, Path]:
    """The matrices that come with the package, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def find_matrix(name_or_path: str, folder: Path = Path()) -> Path:
    """The file of a shipped matrix by its name, or by a path from `folder`; InputError where there is none."""
    if name_or_path in shipped_matrices():
        return shipped_matrices()[name_or_path]
    path = folder / name_or_path
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"{path}: is a folder; fix: give the path of a matrix file")
    raise InputError(
        f"{name_or_path}: no such matrix file and no matrix of that name ships"
        f"{did_you_mean(name_or_path, shipped_matrices())}"
    )


@dataclass(frozen=True)
class MatrixSource:
    """A matrix as it is written.

    Attributes:
        path: its file.
        content: its keys, with those of the matrices that it extends.
        files: the file of each key that is from another one, one or two keys deep.
        variables: the names of all `${VARIABLES}`.
    """

    path: Path
    content: dict[str, Any]
    files: Mapping[tuple[str, ...], Path]
    variables: frozenset[str]

    def where(self, location: Sequence[Any]) -> str:
        """`FILE: models.teacher.seed`: a place in the matrix and the file that has it."""
        return f"{self.file_of(*location[:2])}: {dotted(location)}" if location else str(self.path)

    def file_of(self, *keys: Any) -> Path:
        """The file that has a key, given by one or two keys."""
        return self.files.get(keys, self.files.get(keys[:1], self.path))

    def with_variables(self, values: Mapping[str, str]) -> dict[str, Any]:
        """The content with each `${NAME}` replaced by its value, or else by that of the environment."""
        return self._replaced(self.content, values, ())

    def _replaced(self, value: Any, values: Mapping[str, str], location: tuple[Any, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: self._replaced(item, values, (*location, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._replaced(item, values, (*location, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if found := values.get(name, os.environ.get(name)):
                return found
            raise InputError(
                f"{self.where(location)}: the variable {name} is not set; "
                f"fix: give --set {name}=VALUE, or set it in the environment"
            )

        return _VARIABLE.sub(value_of, value)


def read_source(path: Path, extended_by: Sequence[Path] = ()) -> MatrixSource:
    """Read a matrix file and those that it extends. InputError for what is no matrix, and where they extend each other."""
    content = _renamed(read_mapping(path), path)
    variables = frozenset(_VARIABLE.findall(path.read_text(encoding="utf-8")))
    own = MatrixSource(path, {key: value for key, value in content.items() if key != "extends"}, {}, variables)
    if "extends" not in content:
        return own
    base: MatrixSource | None = None
    for place, name in _extended(content["extends"], path):
        found = read_source(_base_file(name, path, place, extended_by), [*extended_by, path])
        base = found if base is None else _joined(base, found)
    return own if base is None else _joined(base, own)


def _extended(given: Any, path: Path) -> list[tuple[str, str]]:
    """The names or files that a matrix extends, each with its key."""
    if given is None:
        return []
    several = [given] if isinstance(given, str) else given
    if not isinstance(several, list) or not several or not all(isinstance(name, str) for name in several):
        raise InputError(
            f"{path}: extends: {shortened(given)} is no name or file of a matrix; fix: give one, or a list"
        )
    if twice := next((name for index, name in enumerate(several) if name in several[:index]), None):
        raise InputError(f"{path}: extends: {twice} is given twice; fix: give each once")
    places = ["extends"] if isinstance(given, str) else [f"extends.{index}" for index in range(len(several))]
    return list(zip(places, several, strict=True))


def _base_file(name: str, path: Path, place: str, extended_by: Sequence[Path]) -> Path:
    """The file of a matrix that another one extends. InputError where there is none, or where they go round in a circle."""
    try:
        base = find_matrix(name, path.parent)
    except InputError as error:
        raise InputError(f"{path}: {place}: {error}") from None
    chain = [*extended_by, path]
    if base.resolve() in [each.resolve() for each in chain]:
        raise InputError(
            f"{path}: {place}: goes round in a circle ({' -> '.join(each.name for each in (*chain, base))}); "
            "fix: remove one of these keys"
        )
    return base


def _joined(base: MatrixSource, own: MatrixSource) -> MatrixSource:
    """A matrix with what it has from the one that it extends; each key remembers its file."""
    content = dict(own.content)
    files: dict[tuple[str, ...], Path] = {}

    def remember(source: MatrixSource, key: str, entries: Any) -> None:
        files[key,] = source.file_of(key)
        if isinstance(entries, dict):
            files.update({(key, entry): source.file_of(key, entry) for entry in entries})

    for key, value in own.content.items():
        inherited = base.content.get(key)
        if key in _JOINED and isinstance(inherited, dict) and isinstance(value, dict):
            content[key] = _JOINED[key](inherited, value)
            remember(base, key, inherited)
        remember(own, key, value)
    for key, inherited in base.content.items():
        if key not in own.content and key not in _NOT_INHERITED:
            content[key] = inherited
            remember(base, key, inherited)
    return MatrixSource(own.path, content, files, own.variables | base.variables)


def _renamed(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The content with former names of keys replaced by their present ones, with a notice for each."""

    def renamed(group: Any, prefix: str) -> Any:
        if not isinstance(group, dict):
            return group
        for former in RENAMED.keys() & group.keys():
            if RENAMED[former] in group:
                raise InputError(f"{path}: {prefix}{former}: is given as {RENAMED[former]} too; fix: keep that one")
            log.info("%s: %s%s is now %s", path, prefix, former, RENAMED[former])
        return {RENAMED.get(key, key): value for key, value in group.items()}

    content = renamed(content, "")
    if isinstance(methods := content.get("methods"), dict):
        content["methods"] = {name: renamed(group, f"methods.{name}.") for name, group in methods.items()}
    return content

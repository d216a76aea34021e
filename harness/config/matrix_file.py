"""From a matrix file to a checked matrix, and to the part of it that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dskd.errors import InputError
from harness.config.explain import explain
from harness.config.matrix import Cell, Matrix, MethodSettings, Pair, cells
from harness.config.matrix_checks import check_names, check_options
from harness.config.matrix_source import find_matrix, read_source, shipped_matrices
from harness.config.names import find_method
from harness.config.sources import DATA_KINDS, MODEL_KINDS
from harness.suggestions import did_you_mean

__all__ = ["find_matrix", "read_matrix", "read_source", "select", "shipped_matrices"]

_TAGS: dict[str, Mapping[str, Any]] = {"data": DATA_KINDS, "models": MODEL_KINDS}
_TASK_DATA = "HARNESS_DATA"  # which tasks read, whether a matrix has it or not


def read_matrix(path: Path, variables: Mapping[str, str] | None = None, add_methods: Sequence[str] = ()) -> Matrix:
    """Read and check a matrix file. InputError for all that can be known from the file alone.

    `variables`, of `--set NAME=VALUE`, go before the environment. `add_methods` join the methods of every pair that they suit.
    """
    source = read_source(path)
    known = {*source.variables, _TASK_DATA}
    for name in variables or {}:
        if name not in known:
            raise InputError(f"--set {name}: {path} has no ${{{name}}}; fix: use one of {', '.join(sorted(known))}")
    try:
        matrix = Matrix.model_validate(source.with_variables(variables or {}))
    except ValidationError as error:
        raise InputError(explain(error, lambda location: source.where(_without_tag(location)))) from None
    check_names(matrix, source.where)
    for name in add_methods:
        matrix = _with_method(matrix, name, path)
    check_options(matrix, source.where)
    return matrix


def _without_tag(location: Sequence[Any]) -> Sequence[Any]:
    """A location without pydantic's name for the kind of a model or of data, which is no key of the file."""
    return (
        (*location[:2], *location[3:]) if len(location) > 2 and location[2] in _TAGS.get(location[0], ()) else location
    )


def _with_method(matrix: Matrix, name: str, path: Path) -> Matrix:
    """A method for one vocabulary joins pairs that have such a method already, any other joins all pairs."""
    where = f"--add-method {name}"
    method = find_method(name, where)

    def suits(pair: Pair) -> bool:
        if method.requires.vocabulary == "any":
            return True
        known = (find_method(matrix.method_of(each), str(path)) for each in pair.methods)
        return any(each.requires.vocabulary == "same" for each in known)

    suited = [suits(pair) for pair in matrix.pairs]
    if not any(suited):
        raise InputError(
            f"{where}: needs one vocabulary, and {path} has no pair with such a method; fix: use a method for any two"
        )
    pairs = [
        pair.model_copy(update={"methods": list(dict.fromkeys([*pair.methods, method.name]))}) if fits else pair
        for pair, fits in zip(matrix.pairs, suited, strict=True)
    ]
    methods = dict(matrix.methods)
    if name != method.name:
        methods.setdefault(method.name, MethodSettings(method=name))
    return matrix.model_copy(update={"pairs": pairs, "methods": methods})


def select(matrix: Matrix, only: Sequence[str], source: str) -> tuple[list[Cell], list[str]]:
    """The cells and tasks that `--only key=value` leaves; several values of one key are alternatives.

    A teacher's own cell stays while one of its pairs does, unless methods are chosen: then it stays where `teacher` is among them.
    """
    wanted: dict[str, set[str]] = {}
    possible = {
        "teacher": {pair.teacher for pair in matrix.pairs},
        "student": {pair.student for pair in matrix.pairs},
        "method": {cell.method for cell in cells(matrix)},
        "seed": {str(seed) for seed in matrix.seeds},
        "task": set(matrix.tasks),
    }
    for text in only:
        key, separator, value = text.partition("=")
        if not separator or key not in possible:
            raise InputError(f"--only {text}: is no key=value; fix: use one of the keys {', '.join(possible)}")
        if value not in possible[key]:
            raise InputError(f"--only {text}: {source} has no such {key}{did_you_mean(value, possible[key])}")
        wanted.setdefault(key, set()).add(value)

    def passes(key: str, value: object) -> bool:
        return key not in wanted or str(value) in wanted[key]

    pairs = {
        (p.teacher, p.student) for p in matrix.pairs if passes("teacher", p.teacher) and passes("student", p.student)
    }
    # A teacher's own cell has neither student nor seed.
    chosen = [
        cell
        for cell in cells(matrix)
        if passes("method", cell.method)
        and any(
            cell.teacher in matrix.members(teacher)
            if cell.student is None
            else (cell.teacher, cell.student) == (teacher, student)
            for teacher, student in pairs
        )
        and (cell.student is None or passes("seed", cell.seed))
    ]
    if not chosen:
        raise InputError(f"--only {' --only '.join(only)}: no cell of {source} has all of these; fix: leave one out")
    return chosen, [task for task in matrix.tasks if passes("task", task)]

"""From a matrix file to a checked matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dskd.errors import InputError
from harness.config.explain import explain
from harness.config.groups import Groups, expand_pairs
from harness.config.matrix import Matrix, Pair
from harness.config.matrix_checks import check_names, check_options
from harness.config.matrix_source import MatrixSource, find_matrix, read_source, shipped_matrices
from harness.config.names import find_method
from harness.config.places import Location, Places
from harness.config.resolved import resolved_content
from harness.config.selection import cells, select, with_rules
from harness.config.settings import MethodSettings
from harness.config.sources import DATA_KINDS, MODEL_KINDS
from harness.config.tuned_variants import with_tuned
from harness.config.variants import Variants

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
    content, places = expand(source, source.with_variables(variables or {}))

    def where(location: Sequence[Any]) -> str:
        return source.where(places(location))

    try:
        matrix = Matrix.model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error, lambda location: where(_without_tag(location)))) from None
    check_names(matrix, where)
    matrix = with_rules(matrix, where)
    for name in add_methods:
        matrix = _with_method(matrix, name, path)
    resolved = resolved_content(matrix, content, source, variables or {})
    matrix, moved = _without_unused(matrix)
    places = places.then(moved)
    matrix.read_from(where, resolved)
    check_options(matrix, where)
    return matrix


def expand(source: MatrixSource, content: Mapping[str, Any]) -> tuple[dict[str, Any], Places]:
    """The content of a file with names in place of groups, and variants of methods in place of axes.

    Returns:
        The content as `Matrix` takes it, and where in the file everything in it stands.

    Raises:
        InputError: for what is wrong with groups, axes and entries of `include`.
    """
    groups = Groups(content, source.where)
    with_pairs, of_pairs = expand_pairs(content, groups)
    first = Places(of_pairs)
    variants = Variants(with_pairs, groups, lambda location: source.where(first(location)))
    second = first.then(variants.places)
    expanded, of_tuned = with_tuned(variants.content, lambda location: source.where(second(location)))
    if groups.members:
        expanded["groups"] = groups.members
    return expanded, second.then(of_tuned)


def _without_unused(matrix: Matrix) -> tuple[Matrix, dict[Location, Location]]:
    """The matrix without the methods and pairs that `exclude` leaves no cell of, and where the others were before.

    What is excluded need not go together, and is not checked.
    """
    if not matrix.exclude:
        return matrix, {}
    left = {(cell.teacher, cell.student, cell.data, cell.method) for cell in cells(matrix)}
    pairs: list[Pair] = []
    moved: dict[Location, Location] = {}
    for index, pair in enumerate(matrix.pairs):
        data = matrix.other_data(pair.data)
        methods = [name for name in pair.methods if (pair.teacher, pair.student, data, name) in left]
        if not methods:
            continue
        new = ("pairs", len(pairs))
        moved[new] = ("pairs", index)
        for position, name in enumerate(methods):
            moved[*new, "methods", position] = ("pairs", index, "methods", pair.methods.index(name))
        pairs.append(pair.model_copy(update={"methods": methods}))
    used = {name for pair in pairs for name in pair.methods} | {cell.method for cell in matrix.include}
    methods_left = {name: entry for name, entry in matrix.methods.items() if name in used or not entry.axes}
    return matrix.model_copy(update={"pairs": pairs, "methods": methods_left}), moved


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

"""What a matrix names and is there: models, data, methods, tasks, engines, and the options of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

import harness.engines
import harness.tasks
from dskd.errors import InputError
from dskd.training.launch import configuration_file
from dskd.training.options import TrainingOptions
from harness.config.explain import explain
from harness.config.matrix import Matrix
from harness.config.names import find_method, notice_former_names
from harness.config.places import Location
from harness.config.served import ServedSource, TeachersSource
from harness.config.sources import FirstLayersModel
from harness.protocols import column_title
from harness.suggestions import did_you_mean

Where = Callable[[Sequence[Any]], str]


def check_names(matrix: Matrix, where: Where) -> None:
    """InputError for a model or data set that the matrix does not have, and for what is given twice."""

    def require(name: str, known: Mapping[str, Any], what: str, *location: Any) -> None:
        if name not in known:
            raise InputError(f"{where(location)}: no {what} '{name}'{did_you_mean(name, known)}")

    seen: set[tuple[str, str]] = set()
    for index, pair in enumerate(matrix.pairs):
        require(pair.teacher, matrix.models, "model", "pairs", index, "teacher")
        require(pair.student, matrix.models, "model", "pairs", index, "student")
        if pair.data is not None:
            require(pair.data, matrix.data, "data set", "pairs", index, "data")
        named = (pair.teacher, matrix.trained_name(pair.student, pair.data))
        if named in seen:
            raise InputError(
                f"{where(('pairs', index))}: the same teacher and student are given twice; fix: join their methods"
            )
        seen.add(named)
        if len(set(pair.methods)) != len(pair.methods):
            raise InputError(f"{where(('pairs', index, 'methods'))}: a method is given twice; fix: give each once")
    for index, cell in enumerate(matrix.include):
        require(cell.teacher, matrix.models, "model", "include", index, "teacher")
        require(cell.student, matrix.models, "model", "include", index, "student")
        if cell.data is not None:
            require(cell.data, matrix.data, "data set", "include", index, "data")
    for name, model in matrix.models.items():
        for index, stage in enumerate(model.training):
            require(stage.data, matrix.data, "data set", "models", name, "training", index, "data")
        if isinstance(model, FirstLayersModel):
            require(model.layers_of, matrix.models, "model", "models", name, "layers_of")
            _check_no_cycle(matrix, name, where)
        if isinstance(model, TeachersSource):
            for index, member in enumerate(model.names):
                require(member, matrix.models, "model", "models", name, "teachers", member if model.weights else index)
    require(matrix.training.data, matrix.data, "data set", "training", "data")
    _check_places(matrix, where)


def _check_places(matrix: Matrix, where: Where) -> None:
    """InputError where a model that runs here is needed, and the one that is named is behind an address or several together."""
    elsewhere = {
        name: source for name, source in matrix.models.items() if isinstance(source, (ServedSource, TeachersSource))
    }
    needed: list[tuple[str, tuple[Any, ...]]] = [
        (pair.student, ("pairs", index, "student")) for index, pair in enumerate(matrix.pairs)
    ]
    needed += [(cell.student, ("include", index, "student")) for index, cell in enumerate(matrix.include)]
    needed += [
        (model.layers_of, ("models", name, "layers_of"))
        for name, model in matrix.models.items()
        if isinstance(model, FirstLayersModel)
    ]
    for name, key in needed:
        if name in elsewhere:
            raise InputError(
                f"{where(key)}: '{name}' does not run here; fix: name a model with path, hub, config or layers_of"
            )
    for name, source in elsewhere.items():
        several = [member for member in matrix.members(name) if isinstance(matrix.models[member], TeachersSource)]
        if isinstance(source, TeachersSource) and several:
            place = where(("models", name, "teachers"))
            raise InputError(f"{place}: {several[0]} is several teachers itself; fix: name its teachers here")


def _check_no_cycle(matrix: Matrix, name: str, where: Where) -> None:
    seen = [name]
    model = matrix.models[name]
    while isinstance(model, FirstLayersModel) and model.layers_of in matrix.models:
        if model.layers_of in seen:
            raise InputError(
                f"{where(('models', name, 'layers_of'))}: goes round in a circle ({' -> '.join([*seen, model.layers_of])}); "
                "fix: take the layers of another model"
            )
        seen.append(model.layers_of)
        model = matrix.models[model.layers_of]


def check_options(matrix: Matrix, where: Where) -> None:
    """InputError for an unknown method, task or engine, and for options that they or the training do not have."""
    named: list[tuple[str, Location]] = [
        (method, ("pairs", index, "methods", position))
        for index, pair in enumerate(matrix.pairs)
        for position, method in enumerate(pair.methods)
    ]
    named += [(cell.method, ("include", index, "method")) for index, cell in enumerate(matrix.include)]
    for name in dict.fromkeys(name for name, _ in named):
        place = next(place for each, place in named if each == name)
        find_method(matrix.method_of(name), where(place), [*matrix.methods, *matrix.groups])
    for name in matrix.methods:
        options, place = matrix.method_options(name), ("methods", name)
        options_class = find_method(matrix.method_of(name), where(place)).Options
        notice_former_names(options_class, options, f"{where(place)}.")
        _validate(options_class, options, where, place)
    _check_training(matrix.training.options, where, "training")
    for name, settings in matrix.methods.items():
        joined = matrix.training_of(name).options
        _check_training(joined, where, "methods", name, "training", written=settings.training)
    for name, model in matrix.models.items():
        for index, stage in enumerate(model.training):
            _check_training(stage.options, where, "models", name, "training", index)
    _check_tasks(matrix, where)
    if matrix.launch.accelerate_config is not None:
        try:
            configuration_file(matrix.launch.accelerate_config)
        except InputError as error:
            raise InputError(f"{where(('launch', 'accelerate_config'))}: {error}") from None
    harness.engines.check(matrix.evaluation.engine, where(("evaluation", "engine")))


def _check_tasks(matrix: Matrix, where: Where) -> None:
    columns: dict[str, str] = {}
    for entry, settings in matrix.tasks.items():
        name = matrix.task_of(entry)
        place = where(("tasks", entry, "task") if settings.task else ("tasks", entry))
        try:
            task = harness.tasks.load(name)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        protocol = matrix.protocol_of(entry, task.max_new_tokens)
        try:
            task.check_protocol(protocol)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
        earlier = columns.setdefault(column_title(name, protocol.label), entry)
        if earlier != entry:
            problem = f"the same task under the same protocol as tasks.{earlier}"
            raise InputError(f"{where(('tasks', entry))}: {problem}; fix: give it another protocol, or leave one out")


def _check_training(
    given: Mapping[str, Any], where: Where, *place: Any, written: Mapping[str, Any] | None = None
) -> None:
    """`written`: those of the options that are written at this place, if not all are."""
    notice_former_names(TrainingOptions, given if written is None else written, f"{where(place)}.")
    if "seed" in given:
        fix = "use `seeds:` or the model's `seed:`"
        raise InputError(f"{where((*place, 'seed'))}: a seed is no training option; fix: {fix}")
    _validate(TrainingOptions, given, where, place)


def _validate(options: type[BaseModel], given: Mapping[str, Any], where: Where, place: Sequence[Any]) -> None:
    try:
        options.model_validate(given)
    except ValidationError as error:
        raise InputError(explain(error, lambda location: where((*place, *location)), options)) from None

"""A model of a matrix that a class of the user's makes: `models.NAME: {step: path/to/file.py:Class, …}`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, get_args

from pydantic import ValidationError

from dskd.errors import InputError
from harness.config.matrix import StepModel
from harness.plugins import class_at
from harness.steps.base import ModelInput, Step
from harness.suggestions import did_you_mean


def step_model(
    name: str, source: StepModel, where: str, known: Collection[str], model: Callable[[str], ModelInput]
) -> ModelInput:
    """The step, with models of the matrix in the fields that take models.

    Args:
        name: of the model in the matrix.
        source: the class and its fields.
        where: what errors begin with: the file and key of the model.
        known: the names of the matrix's models.
        model: gives one of them.

    Raises:
        InputError: with its key, for what does not fit.
    """
    try:
        cls = class_at(source.step)
    except InputError as error:
        raise InputError(f"{where}.step: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, Step) and issubclass(cls, ModelInput)):
        raise InputError(f"{where}.step: '{source.step}' makes no model; fix: name a class of both Step and ModelInput")
    own = cls.model_fields.keys() - {"name", "title"}
    given: dict[str, Any] = {"name": name, "title": f"model {name}"}
    for key, value in source.options.items():
        if key not in own:
            raise InputError(f"{where}.{key}: unknown key{did_you_mean(key, own)}")
        takes_model = _takes_model(cls.model_fields[key].annotation)
        given[key] = _models(f"{where}.{key}", value, known, model) if takes_model else value
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (where, *first["loc"])))
        raise InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}; fix: correct it") from None


def _takes_model(annotation: Any) -> bool:
    inner = get_args(annotation)
    return (
        any(map(_takes_model, inner)) if inner else isinstance(annotation, type) and issubclass(annotation, ModelInput)
    )


def _models(where: str, value: Any, known: Collection[str], model: Callable[[str], ModelInput]) -> Any:
    if isinstance(value, list):
        return [_models(where, each, known, model) for each in value]
    if value is None:
        return None
    if value not in known:
        raise InputError(f"{where}: no model '{value}'{did_you_mean(str(value), known)}")
    return model(value)

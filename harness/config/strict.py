"""What parts of a matrix have in common: keys that are checked, names, prompt templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from dskd.tokenization.prompt_templates import Template
from harness.suggestions import did_you_mean


class Strict(BaseModel):
    """A part of a matrix. An unknown key is an error that suggests a known one, or one of `options` where `known_keys` are set."""

    model_config = ConfigDict(extra="forbid")
    known_keys: ClassVar[tuple[str, ...]] = ()
    file_keys: ClassVar[tuple[str, ...]] = ()  # which a file may have here, and which are gone when it is validated

    @model_validator(mode="before")
    @classmethod
    def _sort_keys(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if not cls.known_keys:
            return only_known(value, cls)
        given = {key: value[key] for key in cls.known_keys if key in value}
        return {**given, "options": {str(key): item for key, item in value.items() if key not in cls.known_keys}}


def only_known(value: Mapping[Any, Any], model: type[BaseModel]) -> Mapping[Any, Any]:
    """Return the value. A pydantic error for a key that the model does not have, with the nearest that it has."""
    for key in value:
        if key not in model.model_fields:
            hint = did_you_mean(str(key), [*model.model_fields, *getattr(model, "file_keys", ())])
            raise PydanticCustomError("unknown_key", "unknown key{hint}", {"key": str(key), "hint": hint})
    return value


_NAME = "[A-Za-z0-9]([._-]?[A-Za-z0-9]+)*"
Name = Annotated[str, StringConstraints(pattern=rf"^{_NAME}$", max_length=80)]
# Of a method and the values of axes that it is combined with: `kd+low+own`.
VariantName = Annotated[str, StringConstraints(pattern=rf"^{_NAME}(\+{_NAME})*$", max_length=200)]


def _named_template(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


PromptTemplate = Annotated[Template, BeforeValidator(_named_template)]

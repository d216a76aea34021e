"""The base of all options that a user writes, and what of them is part of an identity. Nothing here imports torch.

Options keep their place in an identity when they are renamed (a serialization alias holds the old key) or retired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import AliasChoices, BaseModel, ConfigDict, model_validator

# Marks a field whose value cannot change a result: Annotated[int, NOT_IDENTITY].
NOT_IDENTITY = "not part of an identity"
# Marks a field that came later: where it is None, an identity is what it was before there was the field.
OMIT_NONE = "not part of an identity where it is None"
MAX_SEED = 2**32 - 1  # numpy and vLLM take no larger one


class Options(BaseModel):
    """Options that a user gives; unknown names are errors. retired: {name: (its old default, what to do instead of other values)}."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)
    retired: ClassVar[Mapping[str, tuple[Any, str]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        for name, (default, instead) in cls.retired.items():
            if name in given and str(given[name]).lower() != str(default).lower():
                raise ValueError(f"{name} is no option any more; fix: {instead}")
        return {name: value for name, value in given.items() if name not in cls.retired}

    def identity(self) -> dict[str, Any]:
        """What tells a result with these options from others, under the names that every version of this project has used."""
        identity = {name: default for name, (default, _) in self.retired.items()} | self.model_dump(by_alias=True)
        for name, field in type(self).model_fields.items():
            key, value = field.serialization_alias or name, getattr(self, name)
            if NOT_IDENTITY in field.metadata or (OMIT_NONE in field.metadata and value is None):
                del identity[key]
            elif isinstance(value, Options):
                identity[key] = value.identity()
        return identity


def identity_of(options: Options | None) -> dict[str, Any] | None:
    """`options.identity()`; None for no options."""
    return None if options is None else options.identity()


def old_names(options: type[BaseModel], given: Mapping[str, Any]) -> dict[str, str]:
    """{old name: new name} of the options that are given by a name that they had before."""
    renamed = {
        str(old): name
        for name, field in options.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        for old in field.validation_alias.choices[1:]
    }
    return {old: renamed[old] for old in given if old in renamed}

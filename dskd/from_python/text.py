"""Who writes the text that a student is trained on, as an argument of `dskd.distill`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from dskd.errors import InputError
from dskd.text import Text


def as_text(given: Any, method: str) -> Text | None:
    """Who writes the text. InputError for what is none, and where the teacher would have to write before the training."""
    if given is None:
        return None
    try:
        text = Text.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("text", *first["loc"])))
        raise InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
    if text.teacher is not None:
        raise InputError(
            f"text: the teacher writes before the training; fix: harness train --text teacher --method {method}, or give a dataset "
            "of its responses (harness teacher responses)"
        )
    return text


def with_rollouts(options: Mapping[str, Any], text: Text | None) -> Mapping[str, Any]:
    """Training options with those rollouts that give the student its share of the text."""
    if text is None:
        return options
    given = options.get("rollouts")
    rollouts = given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given
    return {**options, "rollouts": text.rollouts(rollouts)}

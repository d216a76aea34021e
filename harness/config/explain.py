"""What pydantic found wrong, as one line with the place, the mistake and the fix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.config.names import options_in
from harness.suggestions import did_you_mean


def dotted(location: Sequence[Any]) -> str:
    """`models.small-teacher.training.0.steps`, as errors name a place in a matrix."""
    return ".".join(str(part) for part in location)


def explain(error: ValidationError, where: Callable[[Sequence[Any]], str], model: type[BaseModel] | None = None) -> str:
    """The first mistake that pydantic found. `where` names the place of a location; unknown keys get a suggestion from `model`."""
    details = error.errors()[0]
    # Parts in brackets are not in the file: pydantic's for a key, and tags of kinds that a value may have.
    location = [part for part in details["loc"] if not str(part).startswith("[")]
    context, kind = details.get("ctx", {}), details["type"]
    if kind == "unknown_key":
        location.append(context["key"])
        message = f"unknown key{context['hint']}"
    elif kind == "extra_forbidden":
        message = f"unknown key{did_you_mean(str(location[-1]), _keys_at(model, location[:-1]))}"
    elif kind == "missing":
        message = "is missing; fix: add it"
    elif kind == "value_error":
        message = str(context["error"])
    elif kind == "needs_one_of":
        message = details["msg"]
    elif kind == "string_pattern_mismatch":
        message = f"{details['input']!r} is not a name; fix: use letters, digits and single - . _ between them"
    else:
        message = f"{details['msg'][0].lower()}{details['msg'][1:]}, not {shortened(details['input'])}"
    return f"{where(location)}: {message}"


def shortened(value: Any) -> str:
    """The value as Python writes it, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys_at(model: type[BaseModel] | None, location: Sequence[Any]) -> list[str]:
    """The keys of the group of options at a place inside another."""
    for part in location:
        model = options_in(model.model_fields[part].annotation) if model is not None else None
    return list(model.model_fields) if model is not None else []

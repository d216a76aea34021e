"""Names in a matrix or on the command line that stand for something of dskd, and the options that go with them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dskd import methods
from dskd.errors import InputError
from dskd.options import old_names
from harness.suggestions import did_you_mean

log = logging.getLogger(__name__)
_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def find_method(name: str, where: str, others: Iterable[str] = ()) -> type[methods.Method]:
    """The method of this name, or of `file.py:Class`. InputError that begins with `where`; others: more names that may be meant."""
    if ":" not in name and name not in methods.METHODS:
        raise InputError(f"{where}: no method '{name}'{did_you_mean(name, {*methods.METHODS, *others} - {name})}")
    try:
        return methods.get(name)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def notice_former_names(options: type[BaseModel], given: Mapping[str, Any], where: str) -> None:
    """Log a notice for each option that is given by a name that it had before; `where` goes before that name."""
    for former, name in old_names(options, given).items():
        log.info("%s%s is now %s", where, former, name)


def option_rows(options: type[BaseModel], prefix: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Every option with its default, range and meaning; those of a nested group follow it under dotted names."""
    for name, field in options.model_fields.items():
        key = (*prefix, name)
        group = options_in(field.annotation)
        default = None if field.default is PydanticUndefined else field.default
        yield {
            "option": ".".join(key),
            "default": default,
            "range": "" if group else _range(field),
            "meaning": field.description or "",
        }
        if group is not None:
            yield from option_rows(group, key)


def options_in(annotation: Any) -> type[BaseModel] | None:
    """The group of options that a field holds: itself, or one that may be None."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _range(field: FieldInfo) -> str:
    """`> 0, ≤ 1`, or the values that there are to choose from; the type where all its values will do."""
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in _SIGNS.items()
        if getattr(rule, name, None) is not None
    ]
    return ", ".join(bounds) or _type(field.annotation)


def _type(annotation: Any) -> str:
    parts = get_args(annotation)
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, parts))
    if annotation is bool:
        return "true | false"
    if get_origin(annotation) in (list, tuple):
        return f"list of {_type(parts[0])}"
    if parts:
        return " | ".join(_type(part) for part in parts if part is not NoneType)
    return {str: "text"}.get(annotation, getattr(annotation, "__name__", str(annotation)))

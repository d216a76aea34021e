"""Parts of a matrix's cells: what `include` adds, what `exclude` leaves out, and what a value of either may look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from harness.config.settings import TaskName
from harness.config.strict import Name, Strict, VariantName
from harness.protocols import Seed

# Keys that every matrix has, as `--only`, `--skip`, `include` and `exclude` take them; the axes of a matrix join them.
KEYS = ("teacher", "student", "method", "seed", "task", "data")


def as_text(value: Any) -> str:
    """A value as it stands in names and on the command line: 1.0e-4 and `1e-4` are both 0.0001, 2.0 is 2, true is true."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return str(value)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value).replace("+", "")
    return str(value)


def _texts(given: Any) -> Any:
    several = given if isinstance(given, list) else [given]
    if not several or not all(isinstance(value, str | int | float) for value in several):
        raise ValueError(
            "is no name and no list of names; fix: give one, as kd, [kd, sft], a group, or a pattern as dskd-*"
        )
    return tuple(value if isinstance(value, str) else as_text(value) for value in several)


# {key: the names that it may have}; a cell that has one of each key is meant.
PartialCell = Annotated[dict[str, Annotated[tuple[str, ...], BeforeValidator(_texts)]], Field(min_length=1)]


class IncludedCell(Strict):
    """A cell beside those of `pairs`, with every seed where it names none and every task where it names none."""

    teacher: Name
    student: Name
    method: VariantName
    seed: Seed | None = None
    data: Name | None = None
    task: TaskName | None = None


def scalars(entry: Mapping[str, Any], key: str) -> list[Any]:
    """The values of a key of an entry, one or several."""
    value = entry[key]
    return value if isinstance(value, list) else [value]

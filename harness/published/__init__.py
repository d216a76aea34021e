"""What others report: one file a source. A new source is one new file.

Names of models, methods and tasks are the harness's own where it has them, and the source's where it does not. Settings (training
data, sampling, items) are those of the source and differ from a run's: `protocol` says what is known of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = Path(__file__).parent


class _Table(BaseModel):
    """A table as its file has it."""

    model_config = ConfigDict(extra="forbid")
    teacher: str
    student: str
    columns: list[str] = Field(min_length=1)
    values: dict[str, list[float]]
    metric: str | None = None
    protocol: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> _Table:
        for method, values in self.values.items():
            if len(values) != len(self.columns):
                raise ValueError(f"{method}: {len(values)} values for {len(self.columns)} columns")
        return self


class _Source(BaseModel):
    """A file."""

    model_config = ConfigDict(extra="forbid")
    source: str
    read_in: str
    metric: str
    protocol: str
    tables: list[_Table]


class PublishedTable(BaseModel):
    """What one source reports for one pair: for each method a value for each column, a task or what the source averages.

    `read_in` says where the figures were read: not every source could be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str
    read_in: str
    metric: str
    protocol: str
    teacher: str
    student: str
    columns: list[str]
    values: dict[str, list[float]]

    def shown(self, method: str, column: str) -> str | None:
        """One figure with as many digits as the source has, or None where it has none."""
        if column not in self.columns or method not in self.values:
            return None
        digits = max(len(str(value).partition(".")[2]) for values in self.values.values() for value in values)
        return f"{self.values[method][self.columns.index(column)]:.{digits}f}"


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All that is known, by source and pair."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        source = _Source.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
        for table in source.tables:
            own = {key: value for key, value in table.model_dump().items() if value is not None}
            found.append(PublishedTable(**(source.model_dump(exclude={"tables"}) | own)))
    return tuple(found)


def tables_of(pairs: Iterable[tuple[str, str]]) -> list[PublishedTable]:
    """The tables of these pairs (teacher, student)."""
    wanted = set(pairs)
    return [table for table in published_tables() if (table.teacher, table.student) in wanted]

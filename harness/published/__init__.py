"""Published results of others, one file per source.

Models, methods and tasks have the names of the harness if it has them, otherwise those of the source. Settings (training data, sampling,
items) are those of the source and differ from ours; `protocol` says what is known of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

FOLDER = Path(__file__).parent


class PublishedTable(BaseModel):
    """The results of one source for one pair: for each method a value per column, which is a task or an average.

    `read_in` says where the numbers were read, which is not always the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: str
    read_in: str
    metric: str
    protocol: str
    teacher: str
    student: str
    columns: list[str] = Field(min_length=1)
    values: dict[str, list[float]]

    @model_validator(mode="after")
    def _complete(self) -> PublishedTable:
        for method, values in self.values.items():
            if len(values) != len(self.columns):
                raise ValueError(f"{method}: {len(values)} values for {len(self.columns)} columns")
        return self

    def shown(self, method: str, column: str) -> str | None:
        """A value with as many digits as in the source, or None if there is none."""
        if column not in self.columns or method not in self.values:
            return None
        digits = max(len(str(value).partition(".")[2]) for values in self.values.values() for value in values)
        return f"{self.values[method][self.columns.index(column)]:.{digits}f}"


@cache
def published_tables() -> tuple[PublishedTable, ...]:
    """All tables, by source and pair."""
    sources = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yaml"))]
    # A table's own metric and protocol have precedence over its source's.
    return tuple(PublishedTable(**(source | table)) for source in sources for table in source.pop("tables"))


def tables_of(pairs: Iterable[tuple[str, str]]) -> list[PublishedTable]:
    """The tables of these pairs (teacher, student)."""
    wanted = set(pairs)
    return [table for table in published_tables() if (table.teacher, table.student) in wanted]

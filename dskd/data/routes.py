"""Rows of a training set that each belong to one of several teachers, by the name in one of their columns (docs/several-teachers.md)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from dskd.data.formats import Row
from dskd.data.reading import as_json, rows_of
from dskd.errors import InputError
from dskd.io import write_lines_atomic


class Route(BaseModel):
    """The rows of one teacher.

    Attributes:
        column: Which names the teacher of a row.
        teacher: Whose rows are taken.
        teachers: All names that the column may have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    teacher: str
    teachers: tuple[str, ...]

    @field_validator("teachers")
    @classmethod
    def _in_order(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(names))

    def takes(self, where: str, row: Row) -> bool:
        """Whether a row is this teacher's.

        Args:
            where: Its place, for errors.
            row: The row, as its source has it.

        Raises:
            InputError: Where it names none of the teachers: nobody would teach it.
        """
        name = row.get(self.column)
        if name not in self.teachers:
            said = (
                f"'{self.column}' is {name!r}, which is no teacher" if name is not None else f"has no '{self.column}'"
            )
            raise InputError(f"{where}: {said}; fix: name one of {', '.join(self.teachers)}, or leave the row out")
        return name == self.teacher


def split_by_teacher(source: Path, folder: Path, column: str, teachers: Sequence[str]) -> dict[str, Path]:
    """The rows of each teacher as a file of their own, in any shape that they have.

    Args:
        source: A file or a folder in any form of docs/data-sources.md.
        folder: Where NAME.jsonl is written for each teacher.
        column: Which names the teacher of a row.
        teachers: Their names.

    Returns:
        The file of each.

    Raises:
        InputError: For a row that names none of them, and a teacher that no row names.
    """
    found: dict[str, Path] = {}
    for teacher in teachers:
        route = Route(column=column, teacher=teacher, teachers=tuple(teachers))
        own = (row for where, row in rows_of(source) if route.takes(where, row))
        found[teacher] = folder / f"{teacher}.jsonl"
        write_lines_atomic(found[teacher], own, default=as_json)
        if not found[teacher].stat().st_size:
            found[teacher].unlink()
            raise no_row(source, column, teacher)
    return found


def no_row(source: Path | str, column: str, teacher: str) -> InputError:
    """The error for a teacher without a row."""
    return InputError(f"{source}: no row has {teacher!r} in '{column}'; fix: give it rows, or leave out this teacher")

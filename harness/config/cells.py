"""The cells of a matrix: what is trained and evaluated, one model each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# The method name under which a teacher's own scores stand in records and tables.
TEACHER_METHOD = "teacher"


@dataclass(frozen=True, order=True)
class Cell:
    """What is evaluated: a student trained by a method with a seed, or (without student and seed) a teacher itself.

    data: the training set, where it is another than that of the matrix. Such students have tables of their own.
    """

    teacher: str
    student: str | None
    method: str
    seed: int | None
    data: str = ""

    @property
    def trained(self) -> str | None:
        """The student's name in records and tables, which says the training set where it is another: `small+alpaca`."""
        return trained_name(self.student, self.data) if self.student is not None else None

    @property
    def folder(self) -> str:
        """Its folder under `cells/`, and its name on the command line."""
        if self.student is None:
            return f"{self.teacher}/{TEACHER_METHOD}"
        return f"{self.teacher}__{self.trained}/{self.method}/seed{self.seed}"

    @property
    def recorded(self) -> dict[str, Any]:
        """The cell as its records name it."""
        return {"teacher": self.teacher, "student": self.trained, "method": self.method, "seed": self.seed}


def trained_name(student: str, data: str) -> str:
    """A student's name in records and tables; data: its training set, "" for that of the matrix."""
    return f"{student}+{data}" if data else student

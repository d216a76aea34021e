"""What the probe found, as records keep it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, Field

from dskd.errors import InputError
from dskd.teachers.options import TeacherOutputKind

Result = Literal["passed", "refused", "not checked"]


class ProbeCheck(BaseModel):
    """One question that the probe put, and its answer."""

    name: str
    result: Result
    found: str = Field(
        description="what was found, with both figures where two were compared; or why nothing was checked"
    )
    fix: str = Field(default="", description="what to do about what was refused")
    address: str | None = Field(
        default=None, description="of the server that it is about; null for all of them together"
    )
    value: float | None = Field(default=None, description="the figure that was compared with a limit")
    limit: float | None = Field(default=None, description="the largest value that passes")


class ProbeReport(BaseModel):
    """The checks of a served teacher in their order. Addresses stand without user, password and query."""

    kind: TeacherOutputKind
    model: str | None = Field(default=None, description="its name on the servers")
    versions: dict[str, str | None] = Field(description="by address, what the server says of itself at /version")
    checks: list[ProbeCheck]
    seconds: float

    @property
    def refused(self) -> list[ProbeCheck]:
        """The checks that say that this is not the teacher to learn from."""
        return [check for check in self.checks if check.result == "refused"]

    def require(self, where: str) -> None:
        """Raise InputError for the first check that was refused; `where`: the teacher, for what is about no address of its own."""
        for check in self.refused:
            raise InputError(f"{check.address or where}: {check.name}: {check.found}; fix: {check.fix}")

    def lines(self) -> Iterator[tuple[str, ...]]:
        """(check, address, result, what was found) of each check, for a table."""
        for check in self.checks:
            fix = f"; fix: {check.fix}" if check.fix else ""
            yield check.name, check.address or "all", check.result, check.found + fix

"""A titled table of texts: what every format but csv and json shows."""

from __future__ import annotations

from dataclasses import dataclass

DASH = "–"


class Bold(str):
    """The text of a cell that is set bold."""

    __slots__ = ()


@dataclass(frozen=True)
class Grid:
    """A titled table of texts, with a line under it."""

    title: str
    header: list[str]
    lines: list[list[str]]
    note: str = ""

"""Printing tables on standard output."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

# Wider than any line: what is piped on is to be read by programs too, so nothing is folded there.
_UNFOLDED = 10_000


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of plain texts, folded to the width of a terminal and not folded elsewhere."""
    table = Table(show_edge=False, box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_plain, row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_UNFOLDED)
    console.print(table, highlight=False)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)

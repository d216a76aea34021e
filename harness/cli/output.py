"""Tables on standard output, and on standard error how far the work is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

# Opens a stage of so many things to do, and gives the function that is told how many were just done.
Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

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


@contextmanager
def stages() -> Iterator[Stage]:
    """On stderr: bars with the time left on a terminal, a line at the end of each stage elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:

        @contextmanager
        def stage(title: str, total: int) -> Iterator[Callable[[int], None]]:
            bar = bars.add_task(title, total=total)
            start = time.monotonic()
            yield lambda count: bars.advance(bar, count)
            if not console.is_terminal:
                click.echo(f"{title}: {total} in {time.monotonic() - start:.1f} s", err=True)

        yield stage

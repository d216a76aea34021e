"""Tables on standard output, and progress on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

# Opens a stage with a title and a number of things to do. Yields a function that takes how many were just done.
Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

_FOLDED_ROWS = 500  # beyond, folding takes seconds and nobody reads it


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table of plain texts, folded to the width of a terminal. Piped output is for programs too and is never folded."""
    texts = [tuple(row) for row in rows]
    console = Console()
    if not console.is_terminal or len(texts) > _FOLDED_ROWS:
        widths = [max(map(cell_len, column)) for column in zip(header, *texts, strict=True)]
        for row in (header, *texts):
            cells = (text + " " * (width - cell_len(text)) for text, width in zip(row, widths, strict=True))
            click.echo("  ".join(cells).rstrip())
        return
    table = Table(show_edge=False, box=None, pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in texts:
        table.add_row(*map(escape, row))
    console.print(table, highlight=False)


def print_json(value: Any) -> None:
    """A JSON document on standard output; what that has no characters for is escaped."""
    can_write_all = (sys.stdout.encoding or "").lower().replace("-", "") in {"utf8", "utf8sig"}
    click.echo(json.dumps(value, indent=2, ensure_ascii=not can_write_all, allow_nan=False))


def number(value: float | None, form: str = ".2f") -> str:
    """A number in a table, or a dash."""
    return "–" if value is None else format(value, form)


def interval(ends: Sequence[float] | None, form: str = ".2f") -> str:
    """An interval in a table, or a dash."""
    return "–" if ends is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def reasoning_line(use: Mapping[str, Any]) -> str:
    """What reasoning cost, in a line: of `summarise`, or of a record's `reasoning`."""
    return (
        f"reasoning: {number(use['tokens'], '.1f')} tokens a sample ({number(use['reasoning_tokens'], '.1f')} before the answer), "
        f"{number(use['tokens_per_solved'], '.1f')} a solved one; never ended: {use['never_ended']} "
        f"({use['never_ended_share']:.1f} %); at a limit: reasoning {_cut(use, 'reasoning')}{_closed(use)}, answers {_cut(use, 'answers')}"
    )


def _cut(use: Mapping[str, Any], what: str) -> str:
    count, share = use.get(f"{what}_cut"), use.get(f"{what}_cut_share")
    return number(count, "d") if share is None else f"{count} ({share:.1f} %)"


def _closed(use: Mapping[str, Any]) -> str:
    return f", {use['reasoning_closed']} of them closed and answered" if use.get("reasoning_closed") else ""


def text(value: Any) -> str:
    """A value of a JSON row as text in a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return ", ".join(map(str, value)) or "–" if isinstance(value, (list, tuple)) else str(value)


@contextmanager
def stages() -> Iterator[Stage]:
    """Progress of stages on stderr: bars with the time left on a terminal, a line per stage elsewhere."""
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

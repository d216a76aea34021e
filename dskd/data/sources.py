"""Rows of what a user names on a command line or in Python: a file, a folder, a pipe, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dskd import hub
from dskd.data.formats import Row
from dskd.data.hub_rows import parse_hub_data, rows_of_hub
from dskd.data.reading import readable, rows_of


def rows_named(source: str | Path) -> Iterator[tuple[str, Row]]:
    """The rows of a source.

    Args:
        source: A path, `-` for standard input, or `org/name[@revision][:[configuration:]split]`.

    Yields:
        (the place in words, and the row), in order.

    Raises:
        InputError: For a source that is not there, cannot be read, or has no rows.
    """
    named = parse_hub_data(str(source))
    if named is not None:
        yield from rows_of_hub(named, hub.resolve(named.name.repo, named.name.revision, kind="dataset"))
        return
    with readable(Path(source)) as file:
        yield from rows_of(file)

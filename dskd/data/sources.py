"""Rows of what a user names on a command line or in Python: a file, a folder, a pipe, or a data set on the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dskd import hub
from dskd.data.formats import Row
from dskd.data.hub_rows import parse_hub_data, rows_of_hub
from dskd.data.reading import readable, rows_of
from dskd.errors import InputError


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
    path = Path(source)
    with readable(path) as file:
        try:
            for where, row in rows_of(file):
                yield (where if file == path else where.replace(str(file), str(path), 1)), row
        except InputError as error:
            if file == path:
                raise
            raise InputError(str(error).replace(str(file), str(path))) from None  # the copy of a pipe is gone by then

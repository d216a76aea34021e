"""A file of JSON lines cut into blocks, which are read apart from one another."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from dskd.data.options import Takes
from dskd.data.shapes import Item, read_row
from dskd.errors import InputError
from dskd.io import objects_in, open_lines

# Of a block: so many examples are in memory at once, in each process, and what is lost when a process is killed is a block each.
EXAMPLES, BYTES = 2000, 2**20


@dataclass(frozen=True)
class Block:
    """Some whole lines of a file, of which `examples` are not blank."""

    number: int  # of the block, from 0
    offset: int  # of its first byte
    length: int  # bytes
    line: int  # the number of its first line, from 1
    examples: int
    digest: str  # sha256 of its bytes


def blocks_of(path: Path, limit: int | None = None) -> list[Block]:
    """Cut a file after every 2,000 examples or 1 MiB; which lines are in a block depends on nothing else.

    Args:
        path: A file of JSON lines. They are counted, not parsed.
        limit: Take the first so many examples alone.

    Raises:
        InputError: For a file that cannot be read or has no lines.
    """
    blocks: list[Block] = []
    offset, line, rest = 0, 1, limit
    with open_lines(path) as lines:
        while rest is None or rest > 0:
            found = _next(lines, Block(len(blocks), offset, 0, line, 0, ""), min(EXAMPLES, rest or EXAMPLES))
            if found is None:
                break
            block, lines_read = found
            offset, line = offset + block.length, line + lines_read
            rest = None if rest is None else rest - block.examples
            if block.examples:  # else blank lines at the end
                blocks.append(block)
    if not blocks:
        raise InputError(f"{path}: the file is empty; fix: one JSON object on each line")
    return blocks


def _next(lines: BinaryIO, begun: Block, most: int) -> tuple[Block, int] | None:
    """(the block that begins here, how many lines it has); None at the end of the file."""
    digest = hashlib.sha256()
    read = length = examples = 0
    for text in lines:
        read, length = read + 1, length + len(text)
        digest.update(text)
        examples += bool(text.strip())
        if examples == most or length >= BYTES:
            break
    return (replace(begun, length=length, examples=examples, digest=digest.hexdigest()), read) if read else None


def items_in(path: Path, block: Block, takes: Takes) -> Iterator[tuple[int, Item]]:
    """(line number, example or conversation) of each row of a block; `takes`: what the models take.

    Raises InputError with file and line for a row that is none, and where the file is not what it was when it was cut.
    """
    with open_lines(path) as lines:
        lines.seek(block.offset)
        data = lines.read(block.length)
    if hashlib.sha256(data).hexdigest() != block.digest:
        raise InputError(f"{path}: was changed while it was read; fix: leave it alone, and run the same command again")
    if block.examples:
        for number, row in objects_in(io.BytesIO(data), path, first=block.line):
            yield number, read_row(row, f"{path}:{number}", takes)

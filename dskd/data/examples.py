"""The examples of a training set: its rows as what they are, those left out that cannot be used, and a file of them in one form.

Rows are read one after another; only `load_examples` keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dskd.data.formats import Row, format_of
from dskd.data.messages import Lacking, Unusable
from dskd.data.options import DEFAULT, DataOptions, Takes
from dskd.data.reading import rows_of
from dskd.data.routes import Route, no_row
from dskd.data.shapes import Example, Item, read_row
from dskd.errors import InputError
from dskd.io import write_lines_atomic
from dskd.tokenization.conversations import Conversation, Message

SHOWN = 3  # places or examples that are told for each reason


@dataclass
class LeftOut:
    """Rows that cannot be used: how many for each reason, and the first three places of each.

    Attributes:
        strict: A row that lacks a text is an error and not counted.
    """

    strict: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, error: Unusable) -> None:
        """Count one. Raises it where it is an error."""
        if self.strict and isinstance(error, Lacking):
            raise error
        self.counts[error.reason] = self.counts.get(error.reason, 0) + 1
        places = self.places.setdefault(error.reason, [])
        if len(places) < SHOWN:
            places.append(error.where)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def __str__(self) -> str:
        """`2 output is empty (a.jsonl:3, a.jsonl:9)`, the most frequent reason first."""
        ordered = sorted(self.counts.items(), key=lambda item: -item[1])
        return "; ".join(f"{count:,} {reason} ({', '.join(self.places[reason])})" for reason, count in ordered)


def load_examples(path: Path, *, instructions: bool = False) -> list[Item]:
    """Read a whole training file.

    Args:
        path: A file or folder in any form of docs/data-sources.md.
        instructions: Read instructions and conversations, for models with a template, and not whole prompts.

    Raises:
        InputError: With the line number, for a line that is no example.
    """
    return list(iter_examples(path, "chat" if instructions else "text"))


def iter_examples(
    path: Path,
    takes: Takes,
    options: DataOptions = DEFAULT,
    *,
    limit: int | None = None,
    left_out: Callable[[Unusable], None] | None = None,
    route: Route | None = None,
) -> Iterator[Item]:
    """The examples of a training set, one after another.

    Args:
        path: A file or a folder.
        takes: What the models that are trained on it take.
        options: How its rows are read.
        limit: Read so many rows.
        left_out: Called for each row that cannot be used, which is then left out; without it such a row is an error.
        route: Take the rows of one of several teachers alone, of so many that are read.

    Raises:
        InputError: For rows that cannot be read or are not what the models take, and where none can be used.
    """
    yield from examples_in(islice(rows_of(path), limit), path, takes, options, left_out=left_out, route=route)


def examples_in(
    rows: Iterable[tuple[str, Row]],
    source: Path | str,
    takes: Takes,
    options: DataOptions = DEFAULT,
    *,
    left_out: Callable[[Unusable], None] | None = None,
    route: Route | None = None,
) -> Iterator[Item]:
    """As `iter_examples`, of rows with their places; source: what they are from, for errors."""
    last: Unusable | None = None
    used = found = False
    for where, row in rows:
        found = True
        if route is not None and not route.takes(where, row):
            continue
        try:
            item = read_row(row, where, takes, options)
        except Unusable as error:
            if left_out is None:
                raise
            last = error
            left_out(error)
            continue
        used = True
        yield item
    if not used and found and last is None and route is not None:
        raise no_row(source, route.column, route.teacher)
    if not used:
        raise InputError(f"{source}: no row can be used; {last}" if last else f"{source}: has no rows; fix: give some")


def write_examples(
    source: Path,
    folder: Path,
    takes: Takes,
    options: DataOptions = DEFAULT,
    *,
    limit: int | None = None,
    left_out: LeftOut | None = None,
    route: Route | None = None,
) -> Path:
    """The examples of a source as a JSON-lines file that is read without options.

    Args:
        source: A file or a folder.
        folder: Where the file is written if the source is not such a file.
        takes, options, limit, route: As of `iter_examples`.
        left_out: Counts the rows that cannot be used; without it such a row is an error.

    Returns:
        The source itself where it is JSON lines, all of whose rows can be used as they are; else `examples.jsonl` in the folder.
    """
    counting = None if left_out is None else left_out.add
    if route is None and options.are_default and source.is_file() and format_of(source).is_plain_lines:
        for _ in iter_examples(source, takes, limit=limit, left_out=counting):
            pass
        if left_out is None or not left_out.total:
            return source
        left_out.counts.clear()
        left_out.places.clear()
    made = folder / "examples.jsonl"
    items = iter_examples(source, takes, options, limit=limit, left_out=counting, route=route)
    write_lines_atomic(made, map(as_row, items))
    return made


def as_row(item: Item) -> dict[str, Any]:
    """A row that `read_row` makes the same example of, without options."""
    if isinstance(item, Example):
        prompt = {"prompt": item.prompt} if isinstance(item.prompt, str) else item.prompt._asdict()
        return {**prompt, "output": item.response}
    row: dict[str, Any] = {"messages": [_as_row(message) for message in item.messages], "split_reasoning": False}
    return row | ({"tools": list(item.tools)} if item.tools else {})


def _as_row(message: Message) -> dict[str, Any]:
    named = {"reasoning": "reasoning_content"}
    kept = ("role", "content")
    return {
        named.get(key, key): list(value) if isinstance(value, tuple) else value
        for key, value in asdict(message).items()
        if key in kept or (value is not None and value != ())
    }


def prompt_and_response(item: Item) -> tuple[list[str], list[str]]:
    """The texts of an example that are asked, and those that answer.

    Args:
        item: Any example.

    Returns:
        The prompt, or the instruction and its input, or the messages that are not the assistant's; and the response, or the assistant's
        messages, with their reasoning before each.
    """
    if isinstance(item, Conversation):
        asked = [message.content for message in item.messages if message.role != "assistant"]
        own = (message for message in item.messages if message.role == "assistant")
        return asked, [text for message in own for text in (message.reasoning, message.content) if text]
    asked = [item.prompt] if isinstance(item.prompt, str) else [text for text in item.prompt if text]
    return asked, [item.response]

"""What a training set holds: its columns and shapes, turns and tools, and what of it cannot be used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from dskd.data.examples import LeftOut
from dskd.data.formats import Row
from dskd.data.messages import Unusable
from dskd.data.options import DEFAULT, DataOptions, Takes
from dskd.data.shapes import Example, Item, read_row, shape_of
from dskd.data.turns import supervised_turns


@dataclass
class Survey:
    """Counts of a training set; of rows, unless they say turns.

    Attributes:
        rows, usable: All of them, and those that can be used.
        columns: In how many rows each column is.
        shapes: How many usable rows have each shape.
        turns, trained_turns: Responses, and messages of the assistant; and those of them that are trained on.
        with_system, with_tools, with_reasoning: Usable rows that have such.
        left_out: The rows that cannot be used.
        first: The first usable ones, with their places.
    """

    rows: int = 0
    usable: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    trained_turns: int = 0
    with_system: int = 0
    with_tools: int = 0
    with_reasoning: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    first: list[tuple[str, Item]] = field(default_factory=list)

    def add(self, where: str, row: Row, takes: Takes, options: DataOptions, keep: int) -> None:
        """Count a row, and keep it if it is one of the first `keep`. InputError where the set has to be read otherwise."""
        self.rows += 1
        self.columns.update(map(str, row))
        try:
            item = read_row(row, where, takes, options)
        except Unusable as error:
            self.left_out.add(error)
            return
        self.usable += 1
        self.shapes[_shape(row, takes, options)] += 1
        if len(self.first) < keep:
            self.first.append((where, item))
        if isinstance(item, Example):
            self.turns += 1
            self.trained_turns += 1
            return
        own = [message for message in item.messages if message.role == "assistant"]
        self.turns += len(own)
        self.trained_turns += len(supervised_turns(item))
        self.with_system += item.messages[0].role in ("system", "developer")
        self.with_tools += bool(item.tools)
        self.with_reasoning += any(message.reasoning for message in own)


def _shape(row: Row, takes: Takes, options: DataOptions) -> str:
    if options.messages is not None:
        return f"messages in {options.messages}"
    if options.columns is not None:
        return "columns by template"
    return options.shape or str(shape_of(row, takes))


def survey(
    rows: Iterable[tuple[str, Row]], takes: Takes = "any", options: DataOptions = DEFAULT, *, keep: int = 3
) -> Survey:
    """What a training set holds.

    Args:
        rows: Its rows with their places, read once.
        takes: What the models that are to be trained on it take.
        options: How its rows are read.
        keep: How many examples are kept.

    Raises:
        InputError: For a row that cannot be read, or that the models do not take.
    """
    found = Survey()
    for where, row in rows:
        found.add(where, row, takes, options, keep)
    return found

"""What a model sees of an example: the text of its tokens, and which of them are labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dskd.data.batch_encoding import Side, encode_batch, prepared_rows
from dskd.data.prepared_part import unusable
from dskd.data.rows import label_spans
from dskd.data.shapes import Example, Item
from dskd.data.turns import ConversationEncoder, UnusableTurn, encoder_of
from dskd.tokenization.prompt_templates import template_of
from dskd.tokenization.vocabulary import share_vocabulary

_NO_LIMIT = 2**31
_DETAILS = {
    "not_encodable": "no tokens stand for exactly the response",
    "special_tokens": "the response spells a special token",
}


@dataclass(frozen=True)
class Segment:
    """Some tokens one after the other: their text, how many they are, and whether they are labels."""

    text: str
    tokens: int
    labels: bool


def rows_of_example(item: Item, sides: Sequence[Side]) -> tuple[list[dict[str, Any]], list[UnusableTurn]]:
    """An example as preparation makes it, however long it is.

    Args:
        item: The example.
        sides: The student's, and the teacher's where there is one; with one model alone that one.

    Returns:
        The rows, as in a prepared dataset; and the turns that are left out, with the reasons.
    """
    same = len(sides) > 1 and share_vocabulary(sides[1].vocabulary, sides[0].vocabulary).same
    if isinstance(item, Example) and all(template_of(side.tokenizer) is None for side in sides):
        encoded = [encode_batch([item], side)[0] for side in sides]
        if reasons := unusable(encoded, _NO_LIMIT):
            return [], [UnusableTurn(reason, _DETAILS[reason]) for reason in reasons]
        students, *teachers = ([side] for side in encoded if side is not None)
        return prepared_rows(students, *teachers, same_vocabulary=same), []
    encoders = [encoder_of(side.tokenizer, side.vocabulary) for side in sides]
    return ConversationEncoder(encoders, same_vocabulary=same, max_length=_NO_LIMIT).rows(item)


def segments(row: Mapping[str, Any], name: str, side: Side) -> list[Segment]:
    """The tokens of one side of a row as text, cut where labels begin and end.

    Args:
        row: A row of a prepared dataset.
        name: `student` or `teacher`.
        side: What it was encoded by.

    Returns:
        The segments, whose tokens are those of the row. Bytes that are no text are written as \\xNN.
    """
    ids = [int(token) for token in row[f"{name}_ids"]]
    labelled = {place for first, last in label_spans(row, name) for place in range(first, last)}
    found = []
    for labels, places in groupby(range(len(ids)), key=lambda place: place in labelled):
        tokens = [ids[place] for place in places]
        found.append(Segment(_text(tokens, side), len(tokens), labels))
    return found


def _text(tokens: Sequence[int], side: Side) -> str:
    """The bytes that tokens stand for; a token that stands for none, as a special one, by its name."""
    parts = (_bytes(token, side) or str(side.tokenizer.convert_ids_to_tokens(token)).encode() for token in tokens)
    return b"".join(parts).decode(errors="backslashreplace")


def _bytes(token: int, side: Side) -> bytes:
    known = side.vocabulary.token_bytes
    return b"" if token in side.vocabulary.special_ids or token >= len(known) else known[token]

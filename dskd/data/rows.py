"""Rows of a prepared dataset: which of their tokens are labels, and several turns of one conversation in one row.

A row has `{side}_ids`, and labels from `{side}_prompt_length` to its end. A row with several turns has `{side}_label_spans` as well:
first and last of each turn's labels, one after the other. Pairs and groups number the labels of a row through all its turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dskd.tokenization.alignment import UNKNOWN


def label_spans(row: Mapping[str, Any], side: str) -> list[tuple[int, int]]:
    """The [first, last) of each turn's labels among a row's ids, in order. `side` is `student` or `teacher`."""
    spans = row.get(f"{side}_label_spans")
    if spans is None or not len(spans):
        return [(int(row[f"{side}_prompt_length"]), len(row[f"{side}_ids"]))]
    return [(int(spans[k]), int(spans[k + 1])) for k in range(0, len(spans), 2)]


def labels(row: Mapping[str, Any], side: str) -> list[int]:
    """The labels of a row, turn by turn."""
    ids = row[f"{side}_ids"]
    return [int(token) for first, last in label_spans(row, side) for token in ids[first:last]]


def last_prompt_length(row: Mapping[str, Any], side: str) -> int:
    """How many tokens stand before the labels of a row's last turn: the prompt that a model continues."""
    return label_spans(row, side)[-1][0]


def last_prompt_lengths(dataset: Any, side: str) -> np.ndarray:
    """`last_prompt_length` of every row of a prepared dataset, int64 [rows]."""
    name, spans = f"{side}_prompt_length", f"{side}_label_spans"
    names = [column for column in (name, spans) if column in dataset.column_names]
    table = dataset.select_columns(names).with_format("arrow")[:]
    lengths = table[name].to_numpy()
    if spans not in names:
        return lengths
    own = table[spans].combine_chunks()
    ends = own.offsets.to_numpy()[1:]
    # The last but one number of each row is the first of its last turn; a row without any has one turn.
    found = own.values.to_numpy()[np.maximum(ends - 2, 0)] if len(own.values) else lengths
    return np.where(own.value_lengths().fill_null(0).to_numpy() > 0, found, lengths)


def continues(row: Mapping[str, Any], later: Mapping[str, Any], side: str) -> bool:
    """Whether a row of a later turn begins with all tokens of a row, so that one pass over it serves both turns."""
    ids, rest = row[f"{side}_ids"], later[f"{side}_ids"]
    return len(ids) <= later[f"{side}_prompt_length"] and list(rest[: len(ids)]) == list(ids)


def joined(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row for turns of which each continues the one before. Each has one span of labels."""
    first, last = turns[0], turns[-1]
    row: dict[str, Any] = {}
    for side in ("student", "teacher"):
        if f"{side}_ids" not in first:
            continue
        row |= {f"{side}_ids": last[f"{side}_ids"], f"{side}_prompt_length": first[f"{side}_prompt_length"]}
        row[f"{side}_label_spans"] = [place for turn in turns for place in label_spans(turn, side)[0]]
    for side in ("teacher", "student"):
        if f"{side}_pairs" in first:
            row[f"{side}_pairs"] = list(_numbered(turns, side, "pairs"))
            row[f"{side}_groups"] = list(_numbered(turns, side, "groups"))
    return row


def _numbered(turns: Sequence[dict[str, Any]], side: str, kind: str) -> Iterator[int]:
    """Pairs or groups of all turns, those of later ones numbered on."""
    before = 0
    for turn in turns:
        numbers = turn[f"{side}_{kind}"]
        yield from (number if number == UNKNOWN else number + before for number in numbers)
        first, last = label_spans(turn, side)[0]
        # The last group of a turn is that of the two ends, so both sides have as many groups.
        before += last - first if kind == "pairs" else 1 + max(numbers, default=UNKNOWN)

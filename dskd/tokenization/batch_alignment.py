"""`align` and `byte_groups` of many short texts at once: the cost of a call to numpy is shared by all of them.

The texts are put one after the other. Before each stands a byte that is a token of both models, so that nothing before it reaches
into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dskd.tokenization.alignment import UNKNOWN, align, byte_groups

# Teacher's and student's int64 arrays.
Sides = tuple[np.ndarray, np.ndarray]


def align_many(teacher: Sequence[np.ndarray], student: Sequence[np.ndarray]) -> list[tuple[Sides, Sides]]:
    """What `align` and `byte_groups` give for each text, (pairs, groups).

    Args:
        teacher: For each text, int64 [tokens, 2], as `byte_spans` gives them.
        student: The same of the student, over the same texts.
    """
    if not teacher:
        return []
    widths = np.maximum(*(_last_ends(side) for side in (teacher, student))) + 1
    firsts, size = np.cumsum(widths) - widths, int(widths.sum())  # the place of the byte before each text
    left, right = _Joined.of(teacher, firsts), _Joined.of(student, firsts)
    apart = np.union1d(left.overlapping(), right.overlapping())
    left, right = left.without(apart), right.without(apart)
    pairs, groups = _pairs(left, right, size), _groups(left, right, firsts + 1, size)
    found = list(zip(pairs, groups, strict=True))
    for text in apart.tolist():  # a normaliser put tokens on the same bytes
        found[text] = align(teacher[text], student[text]), byte_groups(teacher[text], student[text])
    return found


def _last_ends(spans: Sequence[np.ndarray]) -> np.ndarray:
    """Where the last byte of each text ends that a token covers, int64 [texts]."""
    last = np.zeros(len(spans), dtype=np.int64)
    texts = np.repeat(np.arange(len(spans)), [len(side) for side in spans])
    np.maximum.at(last, texts, np.concatenate(spans).reshape(-1, 2)[:, 1])
    return last


@dataclass(frozen=True)
class _Joined:
    """The tokens of all texts that cover bytes, each text after its separator, all int64 [tokens].

    `place` is the number of the token in its text, -1 for the separator. `counts` [texts] are of all tokens.
    """

    counts: np.ndarray
    text: np.ndarray
    place: np.ndarray
    start: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, spans: Sequence[np.ndarray], firsts: np.ndarray) -> _Joined:
        counts = np.fromiter(map(len, spans), dtype=np.int64, count=len(spans))
        text = np.repeat(np.arange(len(spans)), counts + 1)
        separators = np.cumsum(counts + 1) - counts - 1
        place = np.arange(len(text)) - separators[text] - 1
        moved = np.empty((len(text), 2), dtype=np.int64)
        moved[place >= 0] = np.concatenate(spans).reshape(-1, 2)
        moved[separators] = -1, 0
        kept = (moved[:, 1] > moved[:, 0]).nonzero()[0]  # neither an empty one nor (-1, -1)
        text = text[kept]
        start, end = (moved[kept] + (firsts[text] + 1)[:, None]).T
        return cls(counts, text, place[kept], start, end)

    def overlapping(self) -> np.ndarray:
        """The texts in which a token begins before the one before it ends."""
        return np.unique(self.text[1:][self.start[1:] < self.end[:-1]])

    def without(self, texts: np.ndarray) -> _Joined:
        """The same without the tokens of some texts."""
        if not len(texts):
            return self
        kept = ~np.isin(self.text, texts) | (self.place < 0)
        return _Joined(self.counts, self.text[kept], self.place[kept], self.start[kept], self.end[kept])

    def split(self, values: np.ndarray, texts: np.ndarray) -> list[np.ndarray]:
        """The values of each text; `texts` ascend."""
        bounds = np.searchsorted(texts, np.arange(len(self.counts) + 1)).tolist()
        return [values[first:last] for first, last in pairwise(bounds)]


def _pairs(teacher: _Joined, student: _Joined, size: int) -> list[Sides]:
    """size: of all texts with their separators, in bytes."""
    ending = np.full(size + 1, UNKNOWN, dtype=np.int64)  # the teacher's token that ends at a place
    ending[teacher.end] = np.arange(len(teacher.end))
    candidates = ending[student.end]
    hits = (candidates != UNKNOWN) & (teacher.start[candidates] == student.start) & (student.place >= 0)
    texts = student.text[hits]
    split = (student.split(side, texts) for side in (teacher.place[candidates[hits]], student.place[hits]))
    return list(zip(*split, strict=True))


def _groups(teacher: _Joined, student: _Joined, begins: np.ndarray, size: int) -> list[Sides]:
    """begins: the place of the first byte of each text, where its separator ends [texts]; size: as above."""
    edges = np.zeros(size + 1, dtype=np.int64)
    ends = np.zeros((2, size + 1), dtype=bool)
    for sign, side, where in zip((1, -1), (teacher, student), ends, strict=True):
        edges[side.start] += sign
        edges[side.end] -= sign
        where[side.end] = True
    is_cut = ends[0] & ends[1]
    cuts = is_cut.nonzero()[0]
    # Bytes before each place that one side alone covers.
    alone = np.concatenate([[0], np.cumsum(np.cumsum(edges) != 0)])[cuts]
    good = np.append(np.diff(alone, prepend=0) == 0, False)  # the last is what follows the last cut
    numbers = np.cumsum(good)
    cuts_before = np.cumsum(is_cut) - is_cut  # and so the number of the first cut at a place or after it
    first = numbers[cuts_before[begins]]  # good ones up to the separator of each text
    sides = []
    for side in (teacher, student):
        found = cuts_before[side.end]
        group = np.where(good[found], numbers[found] - first[side.text] - 1, UNKNOWN)
        offsets = np.cumsum(side.counts) - side.counts
        whole = np.full(int(side.counts.sum()), UNKNOWN, dtype=np.int64)
        tokens = side.place >= 0
        whole[offsets[side.text[tokens]] + side.place[tokens]] = group[tokens]
        bounds = [*offsets.tolist(), len(whole)]
        sides.append([whole[first:last] for first, last in pairwise(bounds)])
    return list(zip(*sides, strict=True))

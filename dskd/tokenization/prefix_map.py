"""What a teacher's tokens are in a student's tokens: the first one of each token's bytes, and of what is left of them after a cut.

A student's token may begin inside a token of the teacher. There the teacher's distribution is that of the tokens which begin with the
bytes before that place, and what each of them goes on with is a first token of the student.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dskd.tokenization.pieces import Pieces
from dskd.tokenization.vocabulary import SharedVocabulary


@dataclass(frozen=True)
class PrefixMap:
    """For each teacher token w of n bytes, entries for the cuts 0 to n; for one without bytes of its own a single entry.

    Attributes:
        offset: int64 [teacher tokens], the entry of cut 0.
        size: int64 [teacher tokens], bytes; 0 for special tokens and gaps.
        rank: int64 [teacher tokens], place among all tokens sorted by bytes; -1 for those without bytes.
        first: int64 [entries], the student's first token of the bytes after the cut; for a special token that of its role; -1 for none.
        begin, end: int64 [entries], the ranks of the tokens that begin with the bytes before the cut.
    """

    offset: np.ndarray
    size: np.ndarray
    rank: np.ndarray
    first: np.ndarray
    begin: np.ndarray
    end: np.ndarray


def map_prefixes(shared: SharedVocabulary, split: Pieces) -> PrefixMap:
    """The map for two vocabularies.

    Args:
        shared: With the bytes of both models' tokens. A token that both have is that token.
        split: How the student splits bytes.
    """
    tokens = shared.teacher_tokens or ()
    size = np.array([len(token or b"") for token in tokens], dtype=np.int64)
    offset = np.concatenate([[0], np.cumsum(size + 1)[:-1]]).astype(np.int64)
    order = sorted((token, k) for k, token in enumerate(tokens) if token)
    rank = np.full(len(tokens), -1, dtype=np.int64)
    ranges: dict[bytes, list[int]] = {}
    for place, (token, k) in enumerate(order):
        rank[k] = place
        for cut in range(len(token) + 1):
            ranges.setdefault(token[:cut], [place, place])[1] = place + 1
    rests = sorted({token[cut:] for token, _ in order for cut in range(len(token))})
    first_of = {rest: ids[0] if ids else -1 for rest, ids in zip(rests, split(rests), strict=True)}
    entries = int((size + 1).sum())
    first, begin, end = (np.full(entries, value, dtype=np.int64) for value in (-1, 0, 0))
    for token, k in order:
        start = int(offset[k])
        for cut in range(len(token) + 1):
            begin[start + cut], end[start + cut] = ranges[token[:cut]]
            first[start + cut] = first_of[token[cut:]] if cut < len(token) else -1
    for k, start in enumerate(offset.tolist()):
        if shared.student_id_of[k] >= 0:
            first[start] = shared.student_id_of[k]
    return PrefixMap(offset, size, rank, first, begin, end)

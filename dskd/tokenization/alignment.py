"""Exact token alignment (ETA) by byte offsets (docs/method.md; arXiv 2504.11426).

Token i of the teacher and token j of the student are a pair if and only if they cover the very same bytes of the same text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary

UNKNOWN = -1


def byte_spans(
    vocabulary: Vocabulary, ids: Sequence[int], text: str, offsets: Sequence[tuple[int, int]] | None = None
) -> np.ndarray:
    """The bytes of a text that each token covers.

    Args:
        vocabulary: The tokens as bytes. If they add up to the text, they alone are exact.
        ids: Token ids [tokens].
        text: The text.
        offsets: Character offsets [tokens, 2] of the tokenizer, for one that normalises the text.

    Returns:
        int64 [tokens, 2], half-open; (-1, -1) for a token without a known interval.
    """
    data = text.encode()
    pieces = [vocabulary.token_bytes[k] for k in ids]
    joined = b"".join(pieces)
    if joined == data or joined == b" " + data:
        ends = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
        spans = np.stack([ends[:-1], ends[1:]], axis=1)
        return spans if joined == data else np.maximum(spans - 1, 0)  # the added first space is no byte of the text
    if offsets is None:
        return np.full((len(pieces), 2), UNKNOWN, dtype=np.int64)
    return _spans_by_offsets(pieces, data, text, offsets)


def _spans_by_offsets(
    pieces: Sequence[bytes], data: bytes, text: str, offsets: Sequence[tuple[int, int]]
) -> np.ndarray:
    widths = np.fromiter((len(character.encode()) for character in text), dtype=np.int64, count=len(text))
    byte_of = np.concatenate([[0], np.cumsum(widths)])
    spans = np.full((len(pieces), 2), UNKNOWN, dtype=np.int64)
    position = 0
    for k, (piece, (first, last)) in enumerate(zip(pieces, offsets, strict=True)):
        start, end = int(byte_of[first]), int(byte_of[last])
        alone = (k == 0 or offsets[k - 1][1] <= first) and (k + 1 == len(pieces) or offsets[k + 1][0] >= last)
        # Some tokenizers trim a leading space from their offsets, so the place right after the last token is tried first; it must
        # lie within what the offsets allow, or a repeated piece could be taken for a later one.
        for place in (position, start):
            if piece and place <= end and place + len(piece) >= min(end, start + 1) and data.startswith(piece, place):
                spans[k] = place, place + len(piece)
                break
        else:
            # Normalised: other bytes than the text's, but the tokenizer says which characters they come from. Some leave composed
            # accents out of the offsets; characters before the next token that are no space belong to this one.
            following = offsets[k + 1][0] if k + 1 < len(pieces) else len(text)
            if alone and end > start:
                covered = last if any(map(str.isspace, text[last:following])) else following
                spans[k] = start, int(byte_of[covered])
        position = int(spans[k, 1]) if spans[k, 1] != UNKNOWN else end
    return spans


def align(teacher_spans: np.ndarray, student_spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair the tokens of two tokenizations that cover the same bytes of one text (exact token alignment, arXiv 2504.11426).

    Args:
        teacher_spans: int64 [tokens, 2], as `byte_spans` gives them.
        student_spans: The same of the student, over the same text.

    Returns:
        Teacher and student indices, both int64 [pairs] and ascending. O(n log n), without a Python loop over tokens.
    """
    teacher, teacher_keys = _keys(teacher_spans)
    student, student_keys = _keys(student_spans)
    if not len(teacher) or not len(student):
        return teacher[:0], student[:0]
    if (teacher_keys[1:] > teacher_keys[:-1]).all() and (student_keys[1:] > student_keys[:-1]).all():
        # Tokens stand in the order of the text, so one is looked up in the other. Cheaper than a join, and responses are so short
        # that the number of calls is what counts.
        places = teacher_keys.searchsorted(student_keys)
        hits = (teacher_keys.take(places, mode="clip") == student_keys).nonzero()[0]
        return teacher[places[hits]], student[hits]
    # A normaliser moved something, or gave two tokens the same bytes: the first of each such pair.
    _, left, right = np.intersect1d(teacher_keys, student_keys, return_indices=True)
    order = np.argsort(student[right], kind="stable")
    return teacher[left[order]], student[right[order]]


def byte_groups(teacher_spans: np.ndarray, student_spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the smallest stretch of bytes that begins and ends at token ends of both models, int64 [tokens] for each side.

    Numbers ascend with the text; -1 where a token covers no bytes, or the other side's do not cover the same. Where a normaliser put
    tokens on the same bytes, the pairs of `align` are all the groups.
    """
    spans = teacher_spans, student_spans
    groups = np.full(len(spans[0]), UNKNOWN, dtype=np.int64), np.full(len(spans[1]), UNKNOWN, dtype=np.int64)
    kept = [(side[:, 1] > side[:, 0]).nonzero()[0] for side in spans]
    starts, ends = ([side[k, column] for side, k in zip(spans, kept, strict=True)] for column in (0, 1))
    if not all(map(len, kept)):
        return groups
    if any((start[1:] < end[:-1]).any() for start, end in zip(starts, ends, strict=True)):
        for group, indices in zip(groups, align(*spans), strict=True):
            group[indices] = np.arange(len(indices))
        return groups
    cuts = np.intersect1d(*ends)
    edges = np.zeros(1 + max(int(end[-1]) for end in ends), dtype=np.int64)
    for sign, start, end in zip((1, -1), starts, ends, strict=True):
        edges[start] += sign
        edges[end] -= sign
    # Bytes before each place that one side alone covers.
    alone = np.concatenate([[0], np.cumsum(np.cumsum(edges) != 0)])
    before = np.concatenate([[0], cuts])[:-1]
    good = np.append(alone[cuts] == alone[before], False)  # the last is what follows the last cut
    renumbered = np.where(good, np.cumsum(good) - 1, UNKNOWN)
    for group, indices, end in zip(groups, kept, ends, strict=True):
        group[indices] = renumbered[cuts.searchsorted(end)]
    return groups


def _keys(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the tokens that cover bytes, a number for each that says which), both int64."""
    starts, ends = spans[:, 0], spans[:, 1]
    kept = (ends > starts).nonzero()[0]  # neither an empty one nor (-1, -1)
    return kept, (starts[kept] << 32) | ends[kept]


@dataclass(frozen=True)
class AlignmentSummary:
    """How well two tokenizers align on a corpus. `pairs` holds, for each document, (teacher indices, student indices)."""

    documents: int
    teacher_tokens: int
    student_tokens: int
    aligned: int
    shared_vocabulary: int
    pairs: list[tuple[list[int], list[int]]]

    @property
    def aligned_share(self) -> float:
        """The share of the student's tokens that have a partner, 0 to 1."""
        return self.aligned / self.student_tokens if self.student_tokens else 0.0


def align_tokenizers(teacher: Any, student: Any, texts: Iterable[str]) -> AlignmentSummary:
    """Align two tokenizers on texts.

    Args:
        teacher: A fast Hugging Face tokenizer.
        student: A fast Hugging Face tokenizer.
        texts: The texts.

    Returns:
        Counts over all texts, and the pairs of each: indices into `tokenizer(text, add_special_tokens=False)`.
    """
    vocabularies = [Vocabulary.from_tokenizer(tokenizer) for tokenizer in (teacher, student)]
    totals = [0, 0]
    pairs = []
    for text in texts:
        spans = []
        for k, tokenizer in enumerate((teacher, student)):
            encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            spans.append(byte_spans(vocabularies[k], encoding["input_ids"], text, encoding["offset_mapping"]))
            totals[k] += len(spans[k])
        left, right = align(*spans)
        pairs.append((left.tolist(), right.tolist()))
    return AlignmentSummary(
        documents=len(pairs),
        teacher_tokens=totals[0],
        student_tokens=totals[1],
        aligned=sum(len(right) for _, right in pairs),
        shared_vocabulary=len(share_vocabulary(*vocabularies)),
        pairs=pairs,
    )

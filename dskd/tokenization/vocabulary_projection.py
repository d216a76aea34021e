"""A sparse matrix from one vocabulary to another: which of the teacher's tokens the text of a student's token begins with.

W [student tokens, teacher tokens] of X-Token (arXiv 2605.21699; docs/rivals.md): a row has at most four entries that add up to one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dskd.tokenization.pieces import Pieces
from dskd.tokenization.vocabulary import SharedVocabulary

PIECES = 4  # entries of a row
_FIRST, _DECAY = 0.9, 0.1  # the weight of piece k of a token is in proportion to 0.9 · 0.1^k


@dataclass(frozen=True)
class VocabularyProjection:
    """The entries of W that are not zero, by student token and within it by descending weight.

    Attributes:
        student_ids, teacher_ids: int64 [entries].
        weights: float32 [entries]; those of a student token add up to one.
    """

    student_ids: np.ndarray
    teacher_ids: np.ndarray
    weights: np.ndarray

    def matched(self, least_weight: float, twins: SharedVocabulary | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (teacher ids, student ids) by each row's largest weight, where that is at least so much; by ascending teacher id.

        A teacher token is in one pair: with the row that has the largest weight for it, of equal ones with its twin in `twins`, else
        with the lowest id. At a least weight of 1 the row must have no other entry.
        """
        first = np.append(True, self.student_ids[1:] != self.student_ids[:-1])[: len(self.student_ids)]
        first &= self.weights >= least_weight
        students, teachers, weights = self.student_ids[first], self.teacher_ids[first], self.weights[first]
        is_twin = np.zeros(len(students), dtype=bool)
        if twins is not None:
            twin_of = np.full(1 + max(teachers.max(initial=-1), twins.teacher_ids.max(initial=-1)), -1, dtype=np.int64)
            twin_of[twins.teacher_ids] = twins.student_ids
            is_twin = twin_of[teachers] == students
        order = np.lexsort((students, ~is_twin, -weights, teachers))
        students, teachers = students[order], teachers[order]
        best = np.append(True, teachers[1:] != teachers[:-1])[: len(teachers)]
        return teachers[best], students[best]


def project_vocabulary(
    shared: SharedVocabulary, of_teacher: Pieces, of_student: Pieces | None = None
) -> VocabularyProjection:
    """W for two vocabularies.

    A student token with a twin, or with one in the same role, has that alone. Another one has the first four tokens that the teacher
    splits its bytes into, each with less weight than the one before. A token without bytes (other special tokens) has an empty row.

    Args:
        shared: With the tokens of both vocabularies, unless they are the same.
        of_teacher: How the teacher splits bytes.
        of_student: How the student does. If given, what it splits each of the teacher's tokens into adds to the same weights before rows
            are normalised (the reverse pass of the released code).
    """
    twins = (shared.student_ids, shared.teacher_ids, np.ones(len(shared), dtype=np.float64))
    if shared.same or shared.teacher_tokens is None or shared.student_tokens is None:
        return _rows(*twins)
    has_twin = np.zeros(len(shared.student_tokens), dtype=bool)
    has_twin[shared.student_ids] = True
    entries = [_walk(shared.student_tokens, of_teacher, ~has_twin)]
    if of_student is not None:
        every = np.ones(len(shared.teacher_tokens), dtype=bool)
        teachers, students, weights = _walk(shared.teacher_tokens, of_student, every)
        kept = ~has_twin[students]
        entries.append((students[kept], teachers[kept], weights[kept]))
    parts = zip(*entries, twins, strict=True)
    return _rows(*(np.concatenate(part) for part in parts))


def _walk(
    tokens: tuple[bytes | None, ...], split: Pieces, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(token, one of its first pieces, the weight of that) of each wanted token that has bytes."""
    ids = [k for k in wanted.nonzero()[0].tolist() if tokens[k]]
    found = [pieces[:PIECES] for pieces in split([tokens[k] or b"" for k in ids])]
    weights = _FIRST * _DECAY ** np.arange(PIECES)
    shares = [weights[: len(pieces)] / weights[: len(pieces)].sum() for pieces in found]
    counts = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
    pieces = np.array([k for own in found for k in own], dtype=np.int64)
    return np.repeat(np.array(ids, dtype=np.int64), counts), pieces, np.concatenate([np.zeros(0), *shares])


def _rows(students: np.ndarray, teachers: np.ndarray, weights: np.ndarray) -> VocabularyProjection:
    """Entries in the same place added up; of each row the largest, of equal ones those of the lowest ids, divided by their sum."""
    width = 1 + int(teachers.max(initial=0))
    places, index = np.unique(students * width + teachers, return_inverse=True)
    added = np.bincount(index, weights=weights, minlength=len(places))
    rows, columns = places // width, places % width
    order = np.lexsort((columns, -added, rows))
    rows, columns, added = rows[order], columns[order], added[order]
    begins = np.append(True, rows[1:] != rows[:-1])[: len(rows)].nonzero()[0]
    rank = np.arange(len(rows)) - np.repeat(begins, np.diff(np.append(begins, len(rows))))
    kept = rank < PIECES
    rows, columns, added = rows[kept], columns[kept], added[kept]
    sums = np.bincount(rows, weights=added, minlength=1 + int(rows.max(initial=0)))
    return VocabularyProjection(rows, columns, (added / sums[rows]).astype(np.float32))

"""The published alignment of two tokenizations by the spelling of tokens, for comparisons alone (docs/method.md).

It drops both signs for a leading space, and loses the rest of a text where two tokenizers spell the same bytes differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

_MARKERS = str.maketrans("", "", "▁Ġ")
UNKNOWN = -1


def align_strings(
    teacher_tokens: Sequence[str], student_tokens: Sequence[str], *, ends: tuple[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(teacher indices, student indices), both int64 [pairs] and ascending: equal tokens that the same string precedes.

    `ends` are the two end-of-sequence tokens, teacher and student, which are a pair although their spellings differ.
    """
    teacher = [token.translate(_MARKERS) for token in teacher_tokens]
    student = [token.translate(_MARKERS) for token in student_tokens]
    last = (None, None) if ends is None else tuple(end.translate(_MARKERS) for end in ends)
    whole = "".join(teacher), "".join(student)
    # What precedes two tokens is the same string where it is equally long and no longer than this.
    common = sum(1 for _ in takewhile(lambda characters: characters[0] == characters[1], zip(*whole, strict=False)))
    pairs: list[tuple[int, int]] = []
    i = j = teacher_length = student_length = 0
    while i < len(teacher) and j < len(student):
        level = teacher_length - student_length
        if level == 0 and teacher_length <= common and (teacher[i] == student[j] or (teacher[i], student[j]) == last):
            pairs.append((i, j))
        # The side that is behind goes on; both where neither is, whether they are a pair or not.
        if level <= 0:
            teacher_length += len(teacher[i])
            i += 1
        if level >= 0:
            student_length += len(student[j])
            j += 1
    found = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def student_ids_of_strings(
    teacher_ids: Mapping[str, int],
    student_ids: Mapping[str, int],
    *,
    roles: Sequence[tuple[int, int]] = (),
    unknown: int = UNKNOWN,
    one_marker: bool = False,
) -> np.ndarray:
    """int64 [teacher ids]: the student's id for the spelling of each teacher's id, `unknown` where it has none.

    `roles` are pairs of ids (teacher, student) that are equal whatever their spelling, later ones first. `one_marker`: the two
    signs for a space are one.
    """

    def spelt(token: str) -> str:
        return token.replace("Ġ", "▁") if one_marker else token

    by_spelling = {spelt(token): k for token, k in student_ids.items()}
    found = np.full(max(teacher_ids.values(), default=-1) + 1, UNKNOWN, dtype=np.int64)
    for token, k in teacher_ids.items():
        found[k] = by_spelling.get(spelt(token), unknown)
    for teacher_id, student_id in roles:
        found[teacher_id] = student_id
    return found


def align_labels(
    student_tokenizer: Any, student: Sequence[int], teacher_tokenizer: Any, teacher: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The pairs of an example's labels as published code finds them: indices of the student's and of the teacher's."""
    sides = (teacher_tokenizer, teacher), (student_tokenizer, student)
    spelt = (tokenizer.convert_ids_to_tokens(list(ids)) for tokenizer, ids in sides)
    teachers, students = align_strings(*spelt, ends=(teacher_tokenizer.eos_token, student_tokenizer.eos_token))
    return students.tolist(), teachers.tolist()


def published_student_ids(
    student_tokenizer: Any, teacher_tokenizer: Any, code: str, *, student_size: int, teacher_size: int
) -> np.ndarray:
    """φ [teacher size] as `dskdv2` or `kdflow` look up a teacher's prediction; -1 where the position is dropped."""
    names = ("eos_token_id",) if code == "dskdv2" else ("bos_token_id", "eos_token_id")
    pairs = [(getattr(teacher_tokenizer, name), getattr(student_tokenizer, name)) for name in names]
    sizes = teacher_size, student_size
    roles = [pair for pair in pairs if all(k is not None and k < size for k, size in zip(pair, sizes, strict=True))]
    unknown = student_tokenizer.unk_token_id if code == "dskdv2" else None
    found = student_ids_of_strings(
        teacher_tokenizer.get_vocab(),
        student_tokenizer.get_vocab(),
        roles=roles,
        unknown=UNKNOWN if unknown is None else unknown,
        one_marker=code == "kdflow",
    )
    found[found >= student_size] = UNKNOWN  # added tokens beyond the student's head
    fitted = np.full(teacher_size, UNKNOWN, dtype=np.int64)
    fitted[: len(found)] = found[: len(fitted)]
    return fitted

"""Token batches for tests, from the tensors of both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.modeling.lm_head import Head


def token_batch(
    student_head: Head,
    student_hidden: Tensor,
    student_labels: Tensor,
    teacher_head: Any = None,
    teacher_hidden: Any = None,
    teacher_labels: Any = None,
    teacher_pairs: Any = None,
    student_pairs: Any = None,
    **more: Any,
) -> TokenBatch:
    """A batch of labelled tokens; `more` are fields of either side, `student_FIELD` or `teacher_FIELD`."""
    student = SideTokens(head=student_head, hidden=student_hidden, labels=student_labels, pairs=student_pairs)
    teacher = SideTokens(head=teacher_head, hidden=teacher_hidden, labels=teacher_labels, pairs=teacher_pairs)
    return changed(TokenBatch(student, None if teacher_head is None else teacher), **more)


def changed(batch: TokenBatch, **fields: Any) -> TokenBatch:
    """The batch, nothing reported or saved yet, with other fields of either side: `student_FIELD` or `teacher_FIELD`."""
    sides = {side: {} for side in ("student", "teacher")}
    for name, value in fields.items():
        side, _, field = name.partition("_")
        sides[side][field] = value
    teacher = replace(batch.teacher, **sides["teacher"]) if batch.teacher is not None else None
    return TokenBatch(replace(batch.student, **sides["student"]), teacher)

"""Token batches for tests, from the tensors of both sides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary


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
    return TokenBatch(replace(batch.student, **sides["student"]), teacher, batch.reference)


def assert_learns_nothing_from_itself_unless_shifted(method: Any, shared: SharedVocabulary) -> None:
    """A student with its teacher's head (29 tokens) and hidden states has no loss and no gradient unless pairs are one token off."""
    generator = torch.Generator().manual_seed(1)
    head = Head(torch.randn(29, 6, generator=generator), None, 1.0, 0.0, 29)
    hidden = torch.randn(9, 6, generator=generator)
    student = hidden.clone().requires_grad_()
    method.prepare(head, head, shared)
    for shift in (0, 1):
        pairs = torch.arange(shift, 9), torch.arange(9 - shift)
        batch = token_batch(head, student, torch.zeros(9, dtype=torch.long), head, hidden, None, *pairs)
        term = method.terms(batch)["distillation"]
        (gradient,) = torch.autograd.grad(term.total, student)
        if shift:
            assert gradient.abs().max() > 1e-3
        else:
            assert term.total.item() == pytest.approx(0.0, abs=1e-5)
            assert gradient.abs().max() < 1e-6

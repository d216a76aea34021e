from __future__ import annotations

import numpy as np
import pytest
import torch

from dskd.errors import InputError
from dskd.heads import Head
from dskd.projectors import DualSpaceProjectors, LeastSquares, Rows
from dskd.vocabulary import SharedVocabulary


def _head(rows: int, columns: int, seed: int, scale: float = 1.0) -> Head:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return Head(weight, None, scale, 0.0, rows)


@pytest.mark.parametrize(
    ("rows", "columns", "decay"),
    [(300, 24, 0.0), (40_000, 24, 0.0), (300, 24, 0.6), (12, 24, 0.0)],
    ids=["tall", "several chunks", "badly conditioned", "fewer rows than columns"],
)
def test_least_squares_equals_the_pseudo_inverse(rows, columns, decay):
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(rows, columns, generator=generator) * torch.exp(-decay * torch.arange(columns))
    target = torch.randn(rows, 5, generator=generator)
    expected = torch.linalg.pinv(matrix.double(), rtol=1e-6) @ target.double()
    order = torch.randperm(rows, generator=generator)
    solved = LeastSquares(Rows(matrix, order)).solve(Rows(target, order)).double()
    assert (solved - expected).norm() <= 1e-4 * expected.norm()


def test_a_projected_hidden_state_gives_the_same_logits_where_that_is_possible():
    student, hidden = _head(60, 16, 2), torch.randn(4, 8)
    ids = np.arange(60)
    # pinv(W_s) W_t is exact only where W_t lies in the range of W_s, so the teacher's head is made from the student's.
    teacher = Head(student.weight @ torch.randn(16, 8), None, 1.0, 0.0, 60)
    projectors = DualSpaceProjectors(student, teacher, SharedVocabulary(ids, ids, ids, same=True))
    torch.testing.assert_close(
        student.logits(projectors.to_student(hidden)), teacher.logits(hidden), rtol=1e-3, atol=1e-3
    )


def test_the_map_to_the_teacher_follows_the_live_student_head_and_the_other_does_not():
    student, teacher = _head(60, 8, 2), _head(60, 16, 3)
    ids = np.arange(60)
    projectors = DualSpaceProjectors(student, teacher, SharedVocabulary(ids, ids, ids, same=True))
    start = projectors.teacher_to_student.detach().clone()
    student.weight.mul_(2.0)
    projectors.follow(student)
    expected = torch.linalg.pinv(teacher.weight) @ student.weight
    torch.testing.assert_close(projectors.student_to_teacher, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(projectors.teacher_to_student.detach(), start)
    assert [name for name, _ in projectors.named_parameters()] == ["teacher_to_student"]


def test_only_shared_rows_are_fitted_and_padded_rows_never():
    student, teacher = _head(70, 8, 2), _head(90, 16, 3)
    shared = SharedVocabulary(np.arange(0, 60, 2), np.arange(30), np.full(90, -1), same=False)
    before = DualSpaceProjectors(student, teacher, shared).teacher_to_student.detach()
    student.weight[30:] = 1e3
    teacher.weight[1::2] = 1e3
    torch.testing.assert_close(DualSpaceProjectors(student, teacher, shared).teacher_to_student.detach(), before)


def test_a_logit_scale_is_folded_in():
    ids = np.arange(60)
    shared = SharedVocabulary(ids, ids, ids, same=True)
    plain = DualSpaceProjectors(_head(60, 8, 2), _head(60, 16, 3), shared)
    scaled = DualSpaceProjectors(_head(60, 8, 2, scale=0.5), _head(60, 16, 3), shared)
    torch.testing.assert_close(scaled.teacher_to_student, plain.teacher_to_student * 2, rtol=1e-4, atol=1e-4)


def test_nothing_shared_is_an_error():
    none = np.array([], dtype=np.int64)
    with pytest.raises(InputError, match="share no token"):
        DualSpaceProjectors(_head(6, 2, 0), _head(6, 2, 1), SharedVocabulary(none, none, np.full(6, -1), same=False))

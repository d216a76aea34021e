"""The two maps of dual-space distillation and their least-squares start (docs/method.md; arXiv 2504.11426).

Both follow from asking that a hidden state gives the same logits in either space over the shared tokens O:
teacher to student  P = pinv(W_s[O]) W_t[O]  [student hidden, teacher hidden],
student to teacher  Q = pinv(W_t[O]) W_s[O]  [teacher hidden, student hidden].
P is trained. Q is no parameter: it follows the live student head and takes no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dskd.errors import InputError
from dskd.heads import Head
from dskd.vocabulary import SharedVocabulary

# Squaring a matrix squares its condition number: beyond this one, float32 products leave fewer than four digits of the solution.
_ILL_CONDITIONED = 1e6
# A direction whose singular value is below this share of the largest is not determined by the data. Far below the cut of
# torch.linalg.pinv (rows times machine epsilon: 3 % for 262,144 rows), which would drop real directions of a real head.
_RANK_TOLERANCE = 1e-6
_CHUNK = 16_384  # rows; bounds what a copy of a part of a 262,144-row head costs


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix [all rows, columns], in an order; read a chunk at a time, so that no copy of a head is kept."""

    matrix: Tensor
    ids: Tensor

    def chunks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        for ids in self.ids.split(_CHUNK):
            yield self.matrix.detach()[ids].to(dtype)


def _product(left: Rows, right: Rows, dtype: torch.dtype) -> Tensor:
    """leftᵀ right, products in `dtype`, their sum over chunks of rows in float64: [left columns, right columns]."""
    shape = (left.matrix.shape[1], right.matrix.shape[1])
    total = torch.zeros(shape, dtype=torch.float64, device=left.matrix.device)
    for first, second in zip(left.chunks(dtype), right.chunks(dtype), strict=True):
        total += (first.T @ second).double()
    return total


class LeastSquares:
    """argmin_X ‖A X − B‖ for one tall A [rows, columns] and many B, by the Gram matrix; no [rows, columns] inverse is kept.

    Where A is badly conditioned the products are taken in float64, and directions that A does not determine (rank below its
    columns, as when few tokens are shared) get the minimum-norm solution that the pseudo-inverse gives.
    """

    def __init__(self, matrix: Rows) -> None:
        self.matrix = matrix
        self.dtype = torch.float32
        values, vectors = torch.linalg.eigh(_product(matrix, matrix, self.dtype))
        if values[0] <= values[-1] / _ILL_CONDITIONED:
            self.dtype = torch.float64
            values, vectors = torch.linalg.eigh(_product(matrix, matrix, self.dtype))
        cutoff = values[-1] * _RANK_TOLERANCE**2  # eigenvalues are squares of singular values
        inverse = torch.where(values > cutoff, 1.0 / values.clamp_min(torch.finfo(values.dtype).tiny), 0.0)
        self.inverse_gram = (vectors * inverse) @ vectors.T

    def solve(self, target: Rows) -> Tensor:
        """target [rows, k] -> X [columns, k] in float32."""
        return (self.inverse_gram @ _product(self.matrix, target, self.dtype)).float()


class DualSpaceProjectors(nn.Module):
    """teacher_to_student [student hidden, teacher hidden], trained; student_to_teacher [teacher hidden, student hidden], derived.

    Raises InputError where the two vocabularies share no token.
    """

    student_to_teacher: Tensor

    def __init__(self, student_head: Head, teacher_head: Head, shared: SharedVocabulary) -> None:
        super().__init__()
        if not len(shared):
            raise InputError(
                "the two vocabularies share no token, so no projector can be fitted; fix: use another pair"
            )
        device = student_head.weight.device
        self._student_ids = torch.from_numpy(shared.student_ids).to(device)
        self._scale = student_head.scale / teacher_head.scale
        teacher_rows = Rows(teacher_head.weight, torch.from_numpy(shared.teacher_ids).to(device))
        self._teacher = LeastSquares(teacher_rows)
        start = LeastSquares(Rows(student_head.weight, self._student_ids)).solve(teacher_rows)
        self.teacher_to_student = nn.Parameter(start / self._scale)
        self.register_buffer("student_to_teacher", torch.zeros(start.shape[::-1], device=device))
        self.follow(student_head)

    @torch.no_grad()
    def follow(self, student_head: Head) -> None:
        """Derive student_to_teacher from the head as it is now; called once before each optimizer step."""
        solution = self._teacher.solve(Rows(student_head.weight, self._student_ids))
        self.student_to_teacher.copy_(solution * self._scale)

    def to_student(self, teacher_hidden: Tensor) -> Tensor:
        """[tokens, teacher hidden] -> [tokens, student hidden]; gradients reach the projector."""
        return teacher_hidden.float() @ self.teacher_to_student.T

    def to_teacher(self, student_hidden: Tensor) -> Tensor:
        """[tokens, student hidden] -> [tokens, teacher hidden]; gradients reach the student's hidden states alone."""
        return student_hidden.float() @ self.student_to_teacher.T

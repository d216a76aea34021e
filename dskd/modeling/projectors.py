"""The maps of dual-space distillation between the two hidden spaces (docs/method.md).

Version 2 (arXiv 2504.11426) starts from least squares. Both maps follow from asking that a hidden state gives the same logits in
either space over the shared tokens O:
teacher to student  P = pinv(W_s[O]) W_t[O]  [student hidden, teacher hidden],
student to teacher  Q = pinv(W_t[O]) W_s[O]  [teacher hidden, student hidden].
P is trained. Q is no parameter: it follows the live student head and takes no gradient.
Version 1 (arXiv 2406.17328) trains two affine maps from a random start, and with cross-model attention a third for its queries.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dskd.errors import InputError
from dskd.modeling.lm_head import Head, gathered, is_spread
from dskd.tokenization.vocabulary import SharedVocabulary

# How far float32 products of one chunk may be amplified. They make an error of at most 5e-8 times this number in a solution, as
# measured, so four digits and more are left; beyond it products are taken in float64. Errors of many chunks average out.
_ILL_CONDITIONED = 500.0
# Of the Gram matrix: beyond this one its Cholesky factor may hide directions that the data does not determine (their limit is 1e12,
# the inverse square of _RANK_TOLERANCE), so the eigenvalues are looked at.
_NEARLY_SINGULAR = 1e11
# A direction whose singular value is below this share of the largest is not determined by the data. Far below the cut of
# torch.linalg.pinv (rows times machine epsilon: 3 % for 262,144 rows), which would drop real directions of a real head.
_RANK_TOLERANCE = 1e-6
_ITERATIONS = 12  # of the power method, which then finds a condition number within a tenth
_BLOCKS = 4  # of columns; enough to save three eighths of a Gram matrix, and few enough for large products
_CHUNK = 2_048  # rows; what is done to them before their product stays in the cache; no large copy of a head is made
_SAMPLE = 2_048  # rows, for a centre


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix [all rows, columns], in an order; read a chunk at a time, so that no copy of a head is kept."""

    matrix: Tensor
    ids: Tensor

    def chunks(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Copies of the rows."""
        for ids in self.ids.split(_CHUNK):
            yield self.matrix.detach()[ids].to(dtype)

    def centre(self) -> Tensor:
        """About their mean [columns]."""
        return self.matrix.detach()[self.ids[:: -(-len(self.ids) // _SAMPLE)]].float().mean(0)


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Float32 products in float32: a training may have chosen TF32 or autocast, whose ten bits are too few to invert anything."""
    kinds: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    before = [kind.fp32_precision for kind in kinds]
    with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
        for kind in kinds:
            kind.fp32_precision = "ieee"
        try:
            yield
        finally:
            for kind, precision in zip(kinds, before, strict=True):
                kind.fp32_precision = precision


def _product(left: Rows, right: Rows, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(leftᵀ right, the same of the rows less their centres) [left columns, right columns], added up in float64.

    Products are taken in `dtype`, of the rows less their centres: the tokens of a trained head share a direction far larger than
    any other, whose rounding would drown the small ones.
    """
    same = left is right
    columns, others = left.matrix.shape[1], right.matrix.shape[1]
    width = -(-columns // _BLOCKS)
    make = partial(torch.zeros, dtype=torch.float64, device=left.matrix.device)
    total, left_sum, right_sum = make(columns, others), make(columns), make(others)
    left_centre, right_centre = left.centre(), right.centre()
    pairs = (
        ((chunk, chunk) for chunk in left.chunks(dtype))
        if same
        else zip(left.chunks(dtype), right.chunks(dtype), strict=True)
    )
    with _exact_float32():
        for first, second in pairs:
            first -= left_centre
            if second is not first:
                second -= right_centre
            left_sum += first.sum(0).double()
            right_sum += second.sum(0).double()
            if same:  # blocks left of the diagonal mirror those right of it
                for k in range(0, columns, width):
                    total[k : k + width, k:] += (first[:, k : k + width].T @ first[:, k:]).double()
            else:
                total += (first.T @ second).double()
    if same:
        total = total.triu() + total.triu(1).T
    left_centre, right_centre = left_centre.double(), right_centre.double()
    whole = total + left_sum[:, None] * right_centre
    whole += left_centre[:, None] * (right_sum + len(left.ids) * right_centre)
    return whole, total


class LeastSquares:
    """argmin_X ‖A X − B‖ for one tall A [rows, columns] and many B, by the Gram matrix; no [rows, columns] inverse is kept.

    Where A is badly conditioned the products are taken in float64; directions that it does not determine get the minimum norm.
    """

    def __init__(self, matrix: Rows) -> None:
        self.matrix = matrix
        self.dtype = torch.float32
        gram, centred = _product(matrix, matrix, self.dtype)
        factor = _cholesky(gram)
        limit = _ILL_CONDITIONED * (len(matrix.ids) / _CHUNK) ** 0.5
        if factor is None or _condition(centred, factor) > max(limit, _ILL_CONDITIONED):
            self.dtype = torch.float64
            gram, _ = _product(matrix, matrix, self.dtype)
            factor = _cholesky(gram)
        if factor is None or _condition(gram, factor) > _NEARLY_SINGULAR:
            self.inverse_gram = _pseudo_inverse(gram)
        else:
            self.inverse_gram = torch.cholesky_inverse(factor)

    def product(self, target: Rows) -> Tensor:
        """Aᵀ B [columns, k] in float64, for target B [rows, k]."""
        return _product(self.matrix, target, self.dtype)[0]

    def solve(self, target: Rows) -> Tensor:
        """target [rows, k] -> X [columns, k] in float32."""
        return (self.inverse_gram @ self.product(target)).float()


def _cholesky(gram: Tensor) -> Tensor | None:
    """The lower factor of a Gram matrix, None where rounding has made it indefinite."""
    factor, failed = torch.linalg.cholesky_ex(gram)
    return None if failed.item() else factor


def _condition(gram: Tensor, factor: Tensor) -> float:
    """About the largest eigenvalue of one matrix by the smallest of another, given by its Cholesky factor; by power iteration."""
    start = torch.randn(len(gram), 1, generator=torch.Generator().manual_seed(0), dtype=gram.dtype).to(gram.device)
    largest = smallest = start
    for _ in range(_ITERATIONS):
        largest = gram @ (largest / largest.norm())
        smallest = torch.cholesky_solve(smallest / smallest.norm(), factor)
    return float(largest.norm() * smallest.norm())


def _pseudo_inverse(gram: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(gram)
    kept = values > values[-1] * _RANK_TOLERANCE**2  # eigenvalues are squares of singular values
    inverse = torch.where(kept, 1.0 / values.clamp_min(torch.finfo(values.dtype).tiny), 0.0)
    return (vectors * inverse) @ vectors.T


class DualSpaceProjectors(nn.Module):
    """The two maps of dual-space distillation, version 2.

    Attributes:
        teacher_to_student: [student hidden, teacher hidden], trained.
        student_to_teacher: [teacher hidden, student hidden], derived from the heads.

    Both are fitted by least squares on the `top_k` shared tokens with the lowest student ids, by default on all. InputError where no
    token is shared.
    """

    student_to_teacher: Tensor
    _whole: Tensor | None = None  # the projector of this step, where processes share it

    @torch.no_grad()
    def __init__(
        self, student_head: Head, teacher_head: Head, shared: SharedVocabulary, *, top_k: int | None = None
    ) -> None:
        super().__init__()
        if not len(shared):
            raise InputError(
                "the two vocabularies share no token, so no projector can be fitted; fix: use another pair"
            )
        device = student_head.weight.device
        student_ids, teacher_ids = shared.student_ids, shared.teacher_ids
        if top_k is not None and top_k < len(shared):
            lowest = np.sort(np.argsort(student_ids, kind="stable")[:top_k])
            student_ids, teacher_ids = student_ids[lowest], teacher_ids[lowest]
        self._student_ids = torch.from_numpy(student_ids).to(device)
        self._scale = student_head.scale / teacher_head.scale
        student_rows = Rows(student_head.weight, self._student_ids)
        teacher_rows = Rows(teacher_head.weight, torch.from_numpy(teacher_ids).to(device))
        student = LeastSquares(student_rows)
        self._teacher = LeastSquares(teacher_rows)
        # Both maps start from one product of the heads, the dearest thing here: W_sᵀ W_t is the transpose of W_tᵀ W_s.
        exact = student.dtype == torch.float64
        cross = student.product(teacher_rows) if exact else self._teacher.product(student_rows).T
        self.teacher_to_student = nn.Parameter((student.inverse_gram @ cross).float() / self._scale)
        self.register_buffer("student_to_teacher", (self._teacher.inverse_gram @ cross.T).float() * self._scale)

    @torch.no_grad()
    def follow(self, student_head: Head, *, derive: bool = True) -> None:
        """With `derive`, derive student_to_teacher from the head as it is now, unless that is frozen; called before each step."""
        spread = is_spread(self.teacher_to_student)
        self._whole = gathered(self.teacher_to_student).detach() if spread else None
        if derive and student_head.weight.requires_grad:
            solution = self._teacher.solve(Rows(student_head.weight, self._student_ids))
            self.student_to_teacher.copy_(solution * self._scale)

    def to_student(self, teacher_hidden: Tensor) -> Tensor:
        """[tokens, teacher hidden] -> [tokens, student hidden]; gradients reach the projector."""
        weight: Tensor = self.teacher_to_student
        if self._whole is not None and is_spread(weight):
            weight = self._whole  # outside the forward, where counts are taken, a process holds a part of it alone
        return teacher_hidden.float() @ weight.T

    def to_teacher(self, student_hidden: Tensor) -> Tensor:
        """[tokens, student hidden] -> [tokens, teacher hidden]; gradients reach the student's hidden states alone."""
        return student_hidden.float() @ self.student_to_teacher.T


class AffineProjectors(nn.Module):
    """The two maps of version 1: affine, trained, and initialised like `nn.Linear`."""

    def __init__(self, student_head: Head, teacher_head: Head) -> None:
        super().__init__()
        device, student, teacher = (
            student_head.weight.device,
            student_head.weight.shape[1],
            teacher_head.weight.shape[1],
        )
        self.teacher_to_student = nn.Linear(teacher, student).to(device)
        self.student_to_teacher = nn.Linear(student, teacher).to(device)

    def to_student(self, teacher_hidden: Tensor) -> Tensor:
        """[tokens, teacher hidden] -> [tokens, student hidden]."""
        return self.teacher_to_student(teacher_hidden.float())

    def to_teacher(self, student_hidden: Tensor) -> Tensor:
        """[tokens, student hidden] -> [tokens, teacher hidden]; gradients reach the student's hidden states too."""
        return self.student_to_teacher(student_hidden.float())


class CrossModelProjectors(AffineProjectors):
    """Affine maps both ways, and query: [tokens, 2 · student hidden] -> [tokens, 2 · teacher hidden], all trained."""

    def __init__(self, student_head: Head, teacher_head: Head) -> None:
        super().__init__(student_head, teacher_head)
        device = student_head.weight.device
        self.query = nn.Linear(2 * student_head.weight.shape[1], 2 * teacher_head.weight.shape[1]).to(device)

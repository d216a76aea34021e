from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dskd.errors import InputError
from dskd.modeling.lm_head import Head
from dskd.modeling.projectors import AffineProjectors, DualSpaceProjectors, LeastSquares, Rows, _cholesky, _condition
from dskd.tokenization.vocabulary import SharedVocabulary


def _head(rows: int, columns: int, seed: int, scale: float = 1.0, *, trained: bool = False) -> Head:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    return Head(weight.requires_grad_(trained), None, scale, 0.0, rows)


def _one_vocabulary(size: int) -> SharedVocabulary:
    ids = np.arange(size)
    return SharedVocabulary(ids, ids, ids, same=True)


def _conditioned(rows: int, columns: int, condition: float, generator: torch.Generator) -> torch.Tensor:
    """A float32 matrix of this condition number whose small directions are no axes."""
    rotation, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator, dtype=torch.float64))
    values = torch.logspace(0, -np.log10(condition), columns, dtype=torch.float64)
    left, _ = torch.linalg.qr(torch.randn(rows, columns, generator=generator, dtype=torch.float64))
    return ((left * values) @ rotation.T).float()


@pytest.mark.parametrize("condition", [2, 20, 60, 300, 3e3, 3e4, 2e5, 5e5])
def test_the_error_against_float64_is_below_the_bar_whatever_the_condition(condition: float) -> None:
    """Bar P2: 1e-4 relative. Float32 products alone would miss it from a condition of some hundreds on."""
    generator = torch.Generator().manual_seed(4)
    matrix = _conditioned(3_000, 32, condition, generator)
    target = matrix @ torch.randn(32, 6, generator=generator) + 0.01 * torch.randn(3_000, 6, generator=generator)
    order = torch.arange(3_000)
    expected = torch.linalg.pinv(matrix.double()) @ target.double()
    solved = LeastSquares(Rows(matrix, order)).solve(Rows(target, order)).double()
    assert (solved - expected).norm() <= 1e-4 * expected.norm()


@pytest.mark.parametrize(("condition", "dtype"), [(10, torch.float32), (200, torch.float64)])
def test_products_are_in_float64_only_where_the_condition_asks_for_it(condition: int, dtype: torch.dtype) -> None:
    matrix = _conditioned(3_000, 32, condition, torch.Generator().manual_seed(4))
    assert LeastSquares(Rows(matrix, torch.arange(3_000))).dtype == dtype


@pytest.mark.parametrize("columns", [8, 64, 200])
def test_the_condition_number_is_estimated_without_eigenvalues(columns: int) -> None:
    matrix = _conditioned(1_000, columns, 50, torch.Generator().manual_seed(5)).double()
    gram = matrix.T @ matrix
    assert _condition(gram, _cholesky(gram)) == pytest.approx(2500, rel=0.2)


def test_a_direction_that_all_rows_share_costs_no_digits() -> None:
    """As in a trained head, where it makes up most of the condition number (Gemma 3 270M: 60 with it, 30 without)."""
    generator = torch.Generator().manual_seed(8)
    matrix = _conditioned(3_000, 32, 10, generator) * 3_000**0.5 + 100 * torch.randn(32, generator=generator)
    order = torch.arange(3_000)
    target = torch.randn(3_000, 6, generator=generator) + 5
    solver = LeastSquares(Rows(matrix, order))
    assert solver.dtype == torch.float32
    expected = torch.linalg.pinv(matrix.double()) @ target.double()
    assert torch.linalg.cond(matrix.double()) > 5e3
    assert (solver.solve(Rows(target, order)).double() - expected).norm() <= 1e-4 * expected.norm()


def test_directions_that_nothing_determines_get_the_minimum_norm_solution() -> None:
    """Two equal columns: the Gram matrix is singular up to rounding, where a Cholesky factor may exist and mean nothing."""
    generator = torch.Generator().manual_seed(6)
    matrix = torch.randn(500, 8, generator=generator)
    matrix[:, 7] = matrix[:, 3]
    target = torch.randn(500, 4, generator=generator)
    order = torch.arange(500)
    solved = LeastSquares(Rows(matrix, order)).solve(Rows(target, order))
    torch.testing.assert_close(solved[7], solved[3], rtol=1e-4, atol=1e-6)
    expected = torch.linalg.pinv(matrix.double()) @ target.double()
    torch.testing.assert_close(solved.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_head_in_half_precision_and_autocast_lose_nothing() -> None:
    generator = torch.Generator().manual_seed(7)
    matrix = torch.randn(400, 16, generator=generator).bfloat16()
    target, order = torch.randn(400, 3, generator=generator), torch.arange(400)
    expected = torch.linalg.pinv(matrix.double()) @ target.double()
    with torch.autocast("cpu", torch.bfloat16):
        product = LeastSquares(Rows(matrix, order)).product(Rows(target, order))
    torch.testing.assert_close(product, matrix.double().T @ target.double(), rtol=1e-5, atol=1e-4)
    solved = LeastSquares(Rows(matrix, order)).solve(Rows(target, order)).double()
    assert (solved - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(
    ("rows", "columns", "decay"),
    [(300, 24, 0.0), (40_000, 24, 0.0), (300, 24, 0.6), (12, 24, 0.0)],
    ids=["tall", "several chunks", "badly conditioned", "fewer rows than columns"],
)
def test_least_squares_equals_the_pseudo_inverse(rows: int, columns: int, decay: float) -> None:
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(rows, columns, generator=generator) * torch.exp(-decay * torch.arange(columns))
    target = torch.randn(rows, 5, generator=generator)
    expected = torch.linalg.pinv(matrix.double(), rtol=1e-6) @ target.double()
    order = torch.randperm(rows, generator=generator)
    solved = LeastSquares(Rows(matrix, order)).solve(Rows(target, order)).double()
    assert (solved - expected).norm() <= 1e-4 * expected.norm()


def test_a_projected_hidden_state_gives_the_same_logits_where_that_is_possible() -> None:
    student, hidden = _head(60, 16, 2), torch.randn(4, 8)
    # pinv(W_s) W_t is exact only where W_t lies in the range of W_s, so the teacher's head is made from the student's.
    teacher = Head(student.weight @ torch.randn(16, 8), None, 1.0, 0.0, 60)
    projectors = DualSpaceProjectors(student, teacher, _one_vocabulary(60))
    torch.testing.assert_close(
        student.logits(projectors.to_student(hidden)), teacher.logits(hidden), rtol=1e-3, atol=1e-3
    )


def test_the_map_to_the_teacher_follows_the_live_student_head_and_the_other_does_not() -> None:
    student, teacher = _head(60, 8, 2, trained=True), _head(60, 16, 3)
    projectors = DualSpaceProjectors(student, teacher, _one_vocabulary(60))
    start = projectors.teacher_to_student.detach().clone()
    student.weight.data.mul_(2.0)
    projectors.follow(student)
    expected = torch.linalg.pinv(teacher.weight) @ student.weight.detach()
    torch.testing.assert_close(projectors.student_to_teacher, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(projectors.teacher_to_student.detach(), start)
    assert [name for name, _ in projectors.named_parameters()] == ["teacher_to_student"]


def test_nothing_is_computed_for_a_head_that_is_frozen() -> None:
    student, teacher = _head(60, 8, 2), _head(60, 16, 3)
    projectors = DualSpaceProjectors(student, teacher, _one_vocabulary(60))
    expected = torch.linalg.pinv(teacher.weight) @ student.weight
    torch.testing.assert_close(projectors.student_to_teacher, expected, rtol=1e-4, atol=1e-4)
    student.weight.fill_(torch.nan)  # a second look at it would show
    projectors.follow(student)
    torch.testing.assert_close(projectors.student_to_teacher, expected, rtol=1e-4, atol=1e-4)


def test_projectors_may_be_fitted_on_the_students_lowest_shared_ids() -> None:
    """On k of them; fewer shared tokens than k are all of them."""
    student, teacher = _head(60, 8, 2, trained=True), _head(70, 16, 3)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(9)).numpy()[:40]
    shared = SharedVocabulary(np.arange(10, 50), order, np.full(70, -1), same=False)
    projectors = DualSpaceProjectors(student, teacher, shared, top_k=25)
    chosen = [k for k in range(40) if order[k] in sorted(order)[:25]]
    heads = teacher.weight[np.arange(10, 50)[chosen]], student.weight.detach()[order[chosen]]
    torch.testing.assert_close(
        projectors.teacher_to_student.detach(), torch.linalg.pinv(heads[1]) @ heads[0], rtol=1e-3, atol=1e-4
    )
    for _ in range(2):
        expected = torch.linalg.pinv(heads[0]) @ heads[1]
        torch.testing.assert_close(projectors.student_to_teacher, expected, rtol=1e-3, atol=1e-4)
        student.weight.data.mul_(2.0)
        heads = heads[0], 2.0 * heads[1]
        projectors.follow(student)
    whole = DualSpaceProjectors(student, teacher, shared)
    more = DualSpaceProjectors(student, teacher, shared, top_k=41)
    assert torch.equal(more.teacher_to_student, whole.teacher_to_student)
    assert not torch.allclose(whole.teacher_to_student, projectors.teacher_to_student, rtol=0.1)


def test_a_map_that_nobody_reads_is_not_derived() -> None:
    student, teacher = _head(60, 8, 2, trained=True), _head(60, 16, 3)
    projectors = DualSpaceProjectors(student, teacher, _one_vocabulary(60))
    start = projectors.student_to_teacher.clone()
    student.weight.data.mul_(2.0)
    projectors.follow(student, derive=False)
    assert torch.equal(projectors.student_to_teacher, start)


@pytest.mark.gpu
def test_following_the_head_reads_nothing_from_the_device() -> None:
    student, teacher = _head(5_000, 64, 2), _head(5_000, 128, 3)
    student = replace(student, weight=student.weight.cuda().requires_grad_())
    projectors = DualSpaceProjectors(
        student, replace(teacher, weight=teacher.weight.cuda()), _one_vocabulary(5_000)
    ).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        projectors.follow(student)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_no_tensor_as_long_as_the_vocabulary_is_kept() -> None:
    student, teacher = _head(600, 8, 2, trained=True), _head(600, 16, 3)
    projectors = DualSpaceProjectors(student, teacher, _one_vocabulary(600))
    solver = projectors._teacher
    kept = [*projectors.state_dict().values(), solver.inverse_gram]
    assert max(tensor.numel() for tensor in kept) == 16 * 16
    assert solver.matrix.matrix is teacher.weight


def test_affine_maps_start_as_linear_layers_do_and_both_are_trained() -> None:
    torch.manual_seed(0)
    expected = torch.nn.Linear(16, 8), torch.nn.Linear(8, 16)
    torch.manual_seed(0)
    projectors = AffineProjectors(_head(60, 8, 2), _head(60, 16, 3))
    hidden, teacher_hidden = torch.randn(4, 8, requires_grad=True), torch.randn(4, 16)
    torch.testing.assert_close(projectors.to_student(teacher_hidden), expected[0](teacher_hidden))
    torch.testing.assert_close(projectors.to_teacher(hidden), expected[1](hidden))
    assert all(parameter.requires_grad for parameter in projectors.parameters())
    (gradient,) = torch.autograd.grad(projectors.to_teacher(hidden).sum(), hidden)
    assert gradient.abs().sum() > 0


def test_only_shared_rows_are_fitted_and_padded_rows_never() -> None:
    student, teacher = _head(70, 8, 2), _head(90, 16, 3)
    shared = SharedVocabulary(np.arange(0, 60, 2), np.arange(30), np.full(90, -1), same=False)
    before = DualSpaceProjectors(student, teacher, shared).teacher_to_student.detach()
    student.weight[30:] = 1e3
    teacher.weight[1::2] = 1e3
    torch.testing.assert_close(DualSpaceProjectors(student, teacher, shared).teacher_to_student.detach(), before)


def test_a_logit_scale_is_folded_in() -> None:
    shared = _one_vocabulary(60)
    plain = DualSpaceProjectors(_head(60, 8, 2), _head(60, 16, 3), shared)
    scaled = DualSpaceProjectors(_head(60, 8, 2, scale=0.5), _head(60, 16, 3), shared)
    torch.testing.assert_close(scaled.teacher_to_student, plain.teacher_to_student * 2, rtol=1e-4, atol=1e-4)


def test_nothing_shared_is_an_error() -> None:
    none = np.array([], dtype=np.int64)
    with pytest.raises(InputError, match="share no token"):
        DualSpaceProjectors(_head(6, 2, 0), _head(6, 2, 1), SharedVocabulary(none, none, np.full(6, -1), same=False))

"""The outcome that stands for all tokens of which nothing is known: its probability, and that nothing vanishes or comes from nowhere."""

from __future__ import annotations

import pytest
import torch

from dskd.losses import DIVERGENCES, with_rest_bucket_of_top_k

SIZE = 7


def _logits(*seeds: int) -> list[torch.Tensor]:
    return [torch.randn(5, SIZE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]


def _slow(ids: list[int], p: torch.Tensor, logits: torch.Tensor, temperature: float) -> list[list[float]]:
    """p and q of one token, an outcome at a time, in float64 and probability space."""
    weights = (logits.double() / temperature).exp()
    q = (weights / weights.sum()).tolist()
    known = [k for k in ids if k >= 0]
    sides = [[0.0 if k < 0 else side[k] for k in ids] for side in (p.tolist(), q)]
    rest = [sum(side[k] for k in range(SIZE) if k not in known) for side in (p.tolist(), q)]
    return [[*side, other] for side, other in zip(sides, rest, strict=True)]


@pytest.mark.parametrize("k", [1, 3, SIZE - 1, SIZE])
@pytest.mark.parametrize("absent", [0, 1, 2])
def test_both_distributions_are_those_of_a_slow_loop(k: int, absent: int) -> None:
    teacher, student = _logits(0, 1)
    p = (teacher.double() / 1.7).softmax(-1)
    best = p.topk(k, dim=-1)
    ids, log_p = best.indices, best.values.log().float()
    if absent:
        ids[1::2, k - min(k, absent) :] = -1  # of the second and fourth row, which for k = 1 have none at all then
        log_p[1::2, k - min(k, absent) :] = -torch.inf
    found = with_rest_bucket_of_top_k(ids, log_p, student, 1.7)
    for row in range(5):
        for ours, slow in zip(found, _slow(ids[row].tolist(), p[row], student[row], 1.7), strict=True):
            torch.testing.assert_close(ours[row].double().exp(), torch.tensor(slow).double(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("k", [2, SIZE])
def test_no_divergence_has_a_gradient_that_is_not_finite(name: str, k: int) -> None:
    teacher, student = _logits(0, 1)
    best = teacher.log_softmax(-1).topk(k, dim=-1)
    ids, log_p = best.indices, best.values
    ids[2] = -1
    log_p[2] = -torch.inf
    ids[3, 1:], log_p[3, 1:] = -1, -torch.inf
    leaf = student.clone().requires_grad_()
    values = DIVERGENCES[name](*with_rest_bucket_of_top_k(ids, log_p, leaf, 1.0))
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    assert gradient[0].abs().max() > 1e-3
    assert gradient[2].abs().max() < 1e-6  # of this token nothing is known


@pytest.mark.parametrize("name", [name for name in DIVERGENCES if name != "adaptive_kl"])
def test_fewer_tokens_give_a_lower_bound_and_all_of_them_the_divergence_itself(name: str) -> None:
    teacher, student = _logits(2, 3)
    whole = DIVERGENCES[name](teacher, student, 1.0)
    before = torch.zeros(5)
    for k in range(1, SIZE + 1):
        best = teacher.log_softmax(-1).topk(k, dim=-1)
        value = DIVERGENCES[name](*with_rest_bucket_of_top_k(best.indices, best.values, student, 1.0))
        assert (value >= before - 1e-6).all()
        before = value
    torch.testing.assert_close(before, whole, rtol=1e-5, atol=1e-6)
    assert (whole > 1e-3).all()


def test_probability_of_rows_that_are_no_tokens_goes_to_the_rest_unless_all_tokens_are_known() -> None:
    """A server's distributions are over all rows of its head: here the two last of nine are padding and have a share."""
    padded = torch.randn(5, SIZE + 2, generator=torch.Generator().manual_seed(4))
    p = padded.double().softmax(-1)
    (student,) = _logits(5)
    share = p[:, SIZE:].sum(-1)
    assert share.min() > 0.01
    best = p[:, :SIZE].topk(3, dim=-1)
    log_p, _ = with_rest_bucket_of_top_k(best.indices, best.values.log().float(), student, 1.0)
    torch.testing.assert_close(log_p[:, -1].double().exp(), 1 - best.values.sum(-1), rtol=1e-5, atol=1e-7)
    best = p[:, :SIZE].topk(SIZE, dim=-1)
    log_p, log_q = with_rest_bucket_of_top_k(best.indices, best.values.log().float(), student, 1.0)
    # Nothing is left that could have it, so this is the teacher's distribution over its tokens, as a live teacher's is.
    expected = DIVERGENCES["forward_kl"](padded[:, :SIZE], student)
    torch.testing.assert_close(DIVERGENCES["forward_kl"](log_p, log_q), expected, rtol=1e-5, atol=1e-6)


def test_probabilities_that_add_up_to_a_little_more_than_one_leave_next_to_nothing() -> None:
    (student,) = _logits(6)
    log_p = torch.tensor([[0.6, 0.4 + 1e-6]]).log()
    ours, _ = with_rest_bucket_of_top_k(torch.tensor([[4, 1]]), log_p, student[:1], 1.0)
    assert torch.equal(ours[:, :2], log_p)
    assert ours[0, 2].exp() < 1e-37
    value = DIVERGENCES["reverse_kl"](*with_rest_bucket_of_top_k(torch.tensor([[4, 1]]), log_p, student[:1], 1.0))
    assert value.isfinite().all()

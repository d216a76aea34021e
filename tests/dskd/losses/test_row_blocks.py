"""What is computed a few rows at a time is what is computed at once; memory used again is never memory still in use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dskd import methods
from dskd.losses import buffer_pool
from dskd.losses import chunked as fused
from dskd.losses import row_blocks as rows
from dskd.losses.buffer_pool import BufferPool, empty_from_pool
from dskd.losses.cross_entropy import cross_entropy_sum
from dskd.losses.divergences import DIVERGENCES
from helpers.method_cases import case


@pytest.fixture(params=[1, 2, 5])
def few_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rows._ELEMENTS, "cpu", 17 * request.param)
    assert len(list(rows.row_blocks(torch.empty(11, 17)))) == -(-11 // request.param)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_by_rows_is_the_divergence(name: str, few_rows: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student, weights = (torch.randn(11, size, generator=generator) for size in (17, 17, 1))
    student.requires_grad_()
    found = DIVERGENCES[name](teacher, student, 1.5)
    plain = DIVERGENCES[name].__wrapped__(teacher, student, 1.5)
    torch.testing.assert_close(found, plain)
    gradients = [torch.autograd.grad((values * weights[:, 0]).sum(), student)[0] for values in (found, plain)]
    torch.testing.assert_close(*gradients)


def test_a_divergence_hands_on_its_own_parameters(few_rows: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(11, 17, generator=generator) for _ in range(2))
    values = [
        DIVERGENCES["skewed_forward_kl"](teacher, student.requires_grad_(), 1.0, skew=skew) for skew in (0.1, 0.7)
    ]
    plain = DIVERGENCES["skewed_forward_kl"](teacher, student.detach(), 1.0, skew=0.7)
    torch.testing.assert_close(values[1].detach(), plain)
    assert (values[0] > values[1]).all()


def test_cross_entropy_by_rows_is_that_of_torch(few_rows: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(11, 17, generator=generator).requires_grad_()
    labels = torch.randint(-1, 17, (11,), generator=generator)
    expected = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
    found = cross_entropy_sum(logits, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (found, expected)))


def test_scratch_memory_is_used_again_but_for_what_is_kept() -> None:
    like = torch.zeros(0)
    pool = BufferPool()
    with pool:
        first, second = empty_from_pool((3, 5), like).fill_(1.0), empty_from_pool((3, 5), like).fill_(2.0)
        assert first.data_ptr() != second.data_ptr()
        place, kept = first.data_ptr(), second[1:]
        del first, second  # of the second a part is still there
        third = empty_from_pool((2, 4), like).fill_(3.0)
        fourth = empty_from_pool((3, 5), like).fill_(4.0)
        assert third.data_ptr() == place
        assert (kept == 2.0).all()
        del third
        other_dtype = empty_from_pool((2, 4), like.bfloat16())
    assert other_dtype.data_ptr() == place
    assert (other_dtype.dtype, other_dtype.shape) == (torch.bfloat16, (2, 4))
    del other_dtype
    outside = empty_from_pool((3, 5), like)
    assert place not in (outside.data_ptr(), fourth.data_ptr())


def test_memory_outlives_the_pool_that_it_came_from() -> None:
    with BufferPool():
        kept = empty_from_pool((3, 5), torch.zeros(0)).fill_(1.0)
    torch.empty(10_000).fill_(2.0)
    assert (kept == 1.0).all()


def test_scratch_memory_of_a_step_is_three_tensors_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of both models and one gradient, however many chunks: the two gradients of the student's logits add up in place."""
    method = methods.get("kd")()
    batch = case(method)[0]
    taken: list[int] = []
    take = np.empty
    monkeypatch.setattr(buffer_pool.np, "empty", lambda size, dtype: taken.append(size) or take(size, dtype))
    fused.chunked_loss(method, batch, None, [], 4)
    assert len(batch.student.labels) > 12
    assert 0 < len(taken) <= 3


@pytest.mark.parametrize("name", ["dskd-v2", "dskd-v2-eta"])
@pytest.mark.parametrize("budget", [0, 3_000, 2**20])  # nothing, some chunks and all
def test_what_the_second_pass_finds_gone_it_computes_again(
    name: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = methods.get(name)()
    batch, leaves = case(method)[:2]
    terms = method.terms(batch)
    expected = method.objective({key: term.total / term.normalizer.clamp_min(1.0) for key, term in terms.items()})
    monkeypatch.setattr(fused, "_RECOMPUTABLE_BYTES", budget)
    products = []
    plain = method.projectors.to_student
    monkeypatch.setattr(method.projectors, "to_student", lambda hidden: products.append(len(hidden)) or plain(hidden))
    loss, _ = fused.chunked_loss(method, batch, None, list(method.projectors.parameters()), 8)
    torch.testing.assert_close(loss, expected)
    once = len(batch.teacher.pairs)
    assert sum(products) == 2 * once if budget == 0 else once <= sum(products) < 2 * once
    assert (sum(products) == once) == (budget == 2**20)
    for found, wanted in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted)

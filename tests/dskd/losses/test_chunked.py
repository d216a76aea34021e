"""The fused loss against the unfused one: one objective, for every method and divergence, on odd shapes and every kind of head."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd import methods
from dskd.losses.chunked import chunk_size, chunked_counts, chunked_loss, chunks, default_chunk_tokens
from dskd.losses.divergences import DIVERGENCES
from dskd.modeling.lm_head import Head
from helpers.method_cases import HEADS, case
from helpers.token_batches import changed


def unfused(method: Any, batch: Any, totals: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
    terms = method.terms(batch)
    return method.objective({name: term.total / totals[name].clamp_min(1.0) for name, term in terms.items()}), terms


def both(
    method: Any, batch: Any, parameters: list[Any], leaves: list[torch.Tensor], chunk: int, scale: float = 1.0
) -> tuple[Any, ...]:
    totals = {name: 1.5 * count for name, count in method.counts(batch).items()}  # the step has more than this batch
    plain, terms = unfused(method, batch, totals)
    expected = torch.autograd.grad(plain * scale, leaves, allow_unused=True)
    loss, sums = chunked_loss(method, batch, totals, parameters, chunk)
    found = torch.autograd.grad(loss * scale, leaves, allow_unused=True)
    return plain, terms, expected, loss, sums, found


PER_TOKEN = [name for name, kind in methods.METHODS.items() if kind.requires.chunkable]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", PER_TOKEN)
@pytest.mark.parametrize("chunk", [1, 7, 37, 1000])
def test_fused_and_unfused_are_one_objective(name: str, head: str, chunk: int) -> None:
    method = methods.get(name)()
    plain, terms, expected, loss, sums, found = both(method, *case(method, head=head), chunk, scale=3.0)
    torch.testing.assert_close(loss, plain.detach(), rtol=1e-5, atol=1e-6)
    for term, value in terms.items():
        torch.testing.assert_close(sums[term].total, value.total.detach(), rtol=1e-5, atol=1e-5)
    for slow, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if slow is None else slow, rtol=1e-4, atol=1e-5)


WITH_DIVERGENCE = [name for name in PER_TOKEN if "divergence" in methods.get(name).Options.model_fields]


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("name", WITH_DIVERGENCE)
def test_every_divergence_is_the_same_when_fused(name: str, divergence: str) -> None:
    rate = {"kd_rate": 0.7} if "kd_rate" in methods.get(name).Options.model_fields else {}
    method = methods.get(name)({"divergence": divergence, "temperature": 1.3, **rate})
    plain, _, expected, loss, _, found = both(method, *case(method, head="softcap", seed=3), 5)
    torch.testing.assert_close(loss, plain.detach(), rtol=1e-5, atol=1e-6)
    for slow, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PER_TOKEN)
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_a_batch_that_is_the_whole_step_needs_no_counts_beforehand(name: str, chunk: int) -> None:
    method = methods.get(name)()
    batch, parameters, leaves = case(method, head="bias", seed=2)
    counts = method.counts(batch)
    plain, _ = unfused(method, batch, counts)
    loss, terms = chunked_loss(method, batch, None, parameters, chunk)
    torch.testing.assert_close(loss, plain.detach(), rtol=1e-5, atol=1e-6)
    found = {term: value.normalizer.item() for term, value in terms.items()}
    assert found == pytest.approx({term: count.item() for term, count in counts.items()})  # weights may be counted too
    expected = torch.autograd.grad(plain, leaves)
    for slow, ours in zip(expected, torch.autograd.grad(loss, leaves), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PER_TOKEN)
@pytest.mark.parametrize("tokens", [0, 1, 2])
def test_few_and_no_tokens(name: str, tokens: int) -> None:
    method = methods.get(name)()
    plain, _, expected, loss, _, found = both(method, *case(method, tokens=tokens), 1)
    torch.testing.assert_close(loss, plain.detach())
    for slow, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if slow is None else slow, rtol=1e-4, atol=1e-5)


def test_a_batch_without_an_aligned_token() -> None:
    method = methods.get("dskd-v2-eta")()
    plain, _, _, loss, _, found = both(method, *case(method, aligned=False), 4)
    torch.testing.assert_close(loss, plain.detach())
    assert all(torch.isfinite(gradient).all() for gradient in found)


@pytest.mark.parametrize("name", PER_TOKEN)
def test_a_frozen_head_costs_no_gradient_of_its_weight(name: str) -> None:
    method = methods.get(name)()
    batch, parameters, leaves = case(method, head="bias", frozen=True)
    assert batch.student.head.weight is not leaves[1] if len(leaves) > 1 else True
    plain, _, expected, loss, _, found = both(method, batch, parameters, leaves, 6)
    torch.testing.assert_close(loss, plain.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PER_TOKEN)
def test_counts_in_chunks_are_the_counts(name: str) -> None:
    method = methods.get(name)()
    batch, *_ = case(method)
    for term, count in method.counts(batch).items():
        assert chunked_counts(method, batch, 5)[term].item() == pytest.approx(count.item()), term


def test_parts_of_a_batch_hold_every_token_and_pair_once() -> None:
    method = methods.get("dskd-v2-eta")()
    batch, *_ = case(method)
    parts = chunks(batch, 10)
    assert [len(part.student.labels) for part in parts] == [10, 10, 10, 7]
    assert [len(part.student.labels) for part in chunks(batch, 36)] == [19, 18]  # not 36 and 1
    assert torch.equal(torch.cat([part.teacher.pairs for part in parts]), batch.teacher.pairs)
    first = 0
    for part in parts:
        assert torch.equal(part.student.pairs, part.student.pairs_on_host)
        assert ((part.student.pairs >= 0) & (part.student.pairs < len(part.student.labels))).all()
        first += len(part.student.labels)


@pytest.mark.parametrize("name", PER_TOKEN)
def test_bfloat16_products_add_up_in_float32(name: str) -> None:
    method = methods.get(name)()
    batch, parameters, leaves = case(method, tokens=64)
    totals = method.counts(batch)
    exact, _ = unfused(method, batch, totals)
    expected = torch.autograd.grad(exact, leaves, allow_unused=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = chunked_loss(method, batch, totals, parameters, 4)
    found = torch.autograd.grad(loss, leaves)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert found[1].dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(found[1].flatten(), expected[1].flatten(), dim=0)
    assert cosine > 0.98


@pytest.mark.parametrize("name", methods.METHODS)
def test_objectives_are_linear_so_that_chunks_may_be_added(name: str) -> None:
    method = methods.get(name)()
    batch, *_ = case(method)
    means = {key: term.total.detach() for key, term in method.terms(batch).items()}
    double = {key: 2 * value for key, value in means.items()}
    torch.testing.assert_close(method.objective(double), 2 * method.objective(means))


def test_the_chunk_suits_the_larger_vocabulary() -> None:
    batch, *_ = case(methods.get("dskd-v2-eta")())
    assert chunk_size(batch, None) == default_chunk_tokens(batch.teacher.head.weight.shape[0])
    assert chunk_size(batch, 3) == 3
    assert default_chunk_tokens(1_000) > default_chunk_tokens(50_257) > default_chunk_tokens(151_936) == 128
    assert default_chunk_tokens(50_257, "cuda") == default_chunk_tokens(151_936, "cuda") == 512
    assert chunk_size(changed(batch, teacher_head=None), None) == default_chunk_tokens(56)


def test_no_product_is_taken_at_a_position_without_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bar P7: what enters a head is as many rows as there are labelled tokens or pairs."""
    seen = []
    logits = Head.logits

    def watched(self: Head, hidden: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(len(hidden))
        return logits(self, hidden, **options)

    method = methods.get("dskd-v2-eta")()
    batch, parameters, _ = case(method)
    totals = method.counts(batch)
    monkeypatch.setattr(Head, "logits", watched)
    chunked_loss(method, batch, totals, parameters, 1000)
    assert sorted(seen) == [19, 19, 19, 37]

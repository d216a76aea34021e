"""Strict shared-vocabulary distillation against KDFlow's code, against loops in float64, and where it must be zero and must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dskd.losses.chunked import chunked_loss
from dskd.methods import get
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers import golden
from helpers.token_batches import assert_learns_nothing_from_itself_unless_shifted, token_batch

STUDENT, TEACHER = 15, 18
SHARED = {2: 1, 3: 9, 7: 0, 8: 14, 11: 5, 16: 6}  # teacher's id: student's id
TEMPERATURE = 1.3


def _shared(pairs: dict[int, int], teacher_size: int) -> SharedVocabulary:
    student_id_of = np.full(teacher_size, -1)
    student_id_of[list(pairs)] = list(pairs.values())
    return SharedVocabulary(np.array(list(pairs)), np.array(list(pairs.values())), student_id_of, same=False)


def _case(options: dict[str, Any], shared: dict[int, int] = SHARED) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(6)
    student_head = Head(
        torch.randn(STUDENT + 2, 5, generator=generator).requires_grad_(),
        torch.randn(STUDENT + 2, generator=generator).requires_grad_(),
        0.8,
        0.0,
        STUDENT,
    )
    teacher_head = Head(torch.randn(TEACHER + 1, 7, generator=generator), None, 1.0, 3.0, TEACHER)
    batch = token_batch(
        student_head,
        torch.randn(6, 5, generator=generator).requires_grad_(),
        torch.randint(0, STUDENT, (6,), generator=generator),
        teacher_head,
        torch.randn(7, 7, generator=generator),
        torch.randint(0, TEACHER, (7,), generator=generator),
        torch.tensor([0, 2, 3, 6]),
        torch.tensor([1, 2, 4, 5]),
    )
    method = get("strict-kd")({"kd_rate": 0.3, "temperature": TEMPERATURE, **options})
    method.prepare(student_head, teacher_head, _shared(shared, TEACHER))
    return method, batch


def _mean_objective(method: Any, batch: Any) -> torch.Tensor:
    return method.objective({name: term.total / term.normalizer for name, term in method.terms(batch).items()})


def _slow_divergence(batch: Any, shared: dict[int, int], top_k: int, outside: str) -> torch.Tensor:
    """Reverse KL summed over the pairs, one pair and one token at a time, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for j, i in zip(batch.teacher.pairs.tolist(), batch.student.pairs.tolist(), strict=True):
        sides = []
        for head, hidden in (
            (batch.teacher.head, batch.teacher.hidden[j]),
            (batch.student.head, batch.student.hidden[i]),
        ):
            logits = head.weight[: head.size].double() @ hidden.double()
            logits = head.scale * (logits if head.bias is None else logits + head.bias[: head.size].double())
            logits = torch.tanh(logits / head.softcap) * head.softcap if head.softcap else logits
            weights = torch.exp(logits / TEMPERATURE)
            sides.append(weights / weights.sum())
        p, q = sides
        chosen = sorted(shared.items(), key=lambda pair: -q[pair[1]].item())[: top_k or None]
        p, q = ([side[pair[k]] for pair in chosen] for k, side in enumerate((p, q)))
        if outside == "one_outcome":
            p, q = [*p, 1 - sum(p)], [*q, 1 - sum(q)]
        for a, b in zip(p, q, strict=True):
            total = total + b / sum(q) * torch.log((b / sum(q)) / (a / sum(p)))
    return total


@pytest.mark.reference("strict-kd")
@pytest.mark.parametrize("outside", ["left_out", "one_outcome"])
@pytest.mark.parametrize("top_k", [0, 1, 3, 6, 100])
def test_loss_and_every_gradient_equal_a_slow_reference(top_k: int, outside: str) -> None:
    method, batch = _case({"top_k": top_k, "outside": outside})
    head = batch.student.head
    logits = (batch.student.hidden.double() @ head.weight.double().T + head.bias.double()) * head.scale
    cross_entropy = -logits.log_softmax(-1)[torch.arange(6), batch.student.labels].sum() / 6
    expected = 0.7 * cross_entropy + 0.3 * _slow_divergence(batch, SHARED, top_k, outside) / 4
    loss = _mean_objective(method, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    leaves = [batch.student.hidden, head.weight, head.bias]
    for ours, slow in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, slow.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 3}, {"outside": "one_outcome"}, {"top_k": 2, "outside": "one_outcome"}]
)
@pytest.mark.parametrize("chunk_tokens", [1, 2, 1000])
def test_parts_of_a_batch_add_up_to_the_whole(options: dict[str, Any], chunk_tokens: int) -> None:
    method, batch = _case(options)
    leaves = [batch.student.hidden, batch.student.head.weight, batch.student.head.bias]
    expected = _mean_objective(method, batch)
    loss, terms = chunked_loss(method, batch, None, chunk_tokens=chunk_tokens)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    assert terms["aligned_share"].total / terms["aligned_share"].normalizer == pytest.approx(4 / 6)
    for ours, whole in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)


def test_where_the_students_whole_vocabulary_is_shared_the_rest_costs_a_finite_amount() -> None:
    everything = {k + 1: k for k in range(STUDENT)}
    for divergence in ("forward_kl", "reverse_kl"):
        method, batch = _case({"outside": "one_outcome", "divergence": divergence}, everything)
        loss = _mean_objective(method, batch)
        (gradient,) = torch.autograd.grad(loss, batch.student.hidden)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


THEIRS = {"kl": "forward_kl", "rkl": "reverse_kl", "jsd": "js_divergence"}


@pytest.mark.parametrize("chunk_tokens", [None, 7])
@pytest.mark.parametrize("case", golden.cases("simple_ctkd"), ids=lambda case: case["name"])
def test_loss_and_gradients_equal_the_published_code(case: dict[str, Any], chunk_tokens: int | None) -> None:
    values = golden.tensors(case)
    head = Head(values["in/student_head"].clone().requires_grad_(), None, 1.0, 0.0, len(values["in/student_head"]))
    teacher_head = Head(values["in/teacher_head"], None, 1.0, 0.0, len(values["in/teacher_head"]))
    hidden = values["in/student_hidden"].clone().requires_grad_()
    places = values["in/student_loss_mask"].bool()
    labels = values["in/student_input_ids"].roll(-1, 1)[places]
    overlap = dict(zip(*values["overlap"].T.flip(0).tolist(), strict=True))
    method = get("strict-kd")(
        {"kd_rate": case["kd_ratio"], "temperature": case["temperature"], "divergence": THEIRS[case["loss"]]}
    )
    method.prepare(head, teacher_head, _shared(overlap, teacher_head.size))
    batch = token_batch(
        head,
        hidden[places],
        labels,
        teacher_head,
        values["in/teacher_hidden_at_mask"],
        None,
        torch.tensor(case["teacher_pairs"]),
        torch.tensor(case["student_pairs"]),
    )
    totals = dict.fromkeys(method.counts(batch), torch.tensor(case["denominator"]))  # theirs, of all terms
    if chunk_tokens is None:
        loss = method.objective({name: term.total / totals[name] for name, term in method.terms(batch).items()})
    else:
        loss, _ = chunked_loss(method, batch, totals, chunk_tokens=chunk_tokens)
    assert loss.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    loss.backward()
    torch.testing.assert_close(hidden.grad, values["grad/student_hidden"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head.weight.grad, values["grad/student_head"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"outside": "one_outcome"}])
@pytest.mark.parametrize("divergence", ["reverse_kl", "forward_kl", "js_divergence", "total_variation"])
def test_a_student_that_is_its_teacher_learns_nothing_unless_tokens_are_shifted(
    options: dict[str, Any], divergence: str
) -> None:
    method = get("strict-kd")({**options, "divergence": divergence})
    assert_learns_nothing_from_itself_unless_shifted(method, _shared({k: k for k in range(3, 25)}, 29))

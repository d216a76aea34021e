"""Every method against a slow reference: in probability space, one token at a time, from the formulas of docs/method.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dskd import methods
from dskd.errors import InputError
from dskd.losses.tokens import TokenBatch
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers.token_batches import token_batch

STUDENT, TEACHER = 23, 29  # vocabulary sizes
RATE, TEMPERATURE = 0.3, 1.7


def _softmax(logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    weights = torch.exp(logits / temperature)
    return weights / weights.sum()


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(())
    for a, b in zip(p, q, strict=True):
        total = total + a * torch.log(a / b)
    return total


def _case(same: bool) -> tuple[Any, SharedVocabulary]:
    generator = torch.Generator().manual_seed(7)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    teacher_size = STUDENT if same else TEACHER
    student_head = Head(
        random(STUDENT + 3, 6).requires_grad_(), (0.1 * random(STUDENT + 3)).requires_grad_(), 0.8, 0.0, STUDENT
    )
    teacher_head = Head(random(teacher_size + 2, 9), None, 1.0, 3.0, teacher_size)
    if same:
        ids = np.arange(STUDENT)
        shared = SharedVocabulary(ids, ids, ids, same=True)
        pairs = (torch.arange(16), torch.arange(16))
    else:
        student_id_of = np.full(TEACHER, -1)
        student_id_of[4:20] = np.arange(2, 18)
        shared = SharedVocabulary(np.arange(4, 20), np.arange(2, 18), student_id_of, same=False)
        pairs = (torch.arange(14) + 4, torch.arange(14) + 1)
    batch = token_batch(
        student_head,
        random(16, 6).requires_grad_(),
        torch.randint(0, STUDENT, (16,), generator=generator),
        teacher_head,
        random(16 if same else 18, 9),
        torch.randint(0, teacher_size, (16 if same else 18,), generator=generator),
        *pairs,
    )
    return batch, shared


def _logits(head: Head, hidden: torch.Tensor, *, detach: bool = False, padded: bool = False) -> torch.Tensor:
    weight, bias = head.weight, head.bias
    if detach:
        weight, bias = weight.detach(), None if bias is None else bias.detach()
    rows = []
    for k in range(len(weight) if padded else head.size):
        value = (weight[k] * hidden).sum() + (0 if bias is None else bias[k])
        value = value * head.scale
        rows.append(torch.tanh(value / head.softcap) * head.softcap if head.softcap else value)
    return torch.stack(rows)


def _cross_entropy(batch: TokenBatch) -> torch.Tensor:
    total = torch.zeros(())
    for hidden, label in zip(batch.student.hidden, batch.student.labels, strict=True):
        total = total - torch.log(_softmax(_logits(batch.student.head, hidden, padded=True))[label])
    return total / len(batch.student.labels)


def _reference_sft(batch: Any, shared: SharedVocabulary, method: Any) -> torch.Tensor:
    return _cross_entropy(batch)


def _reference_kd(batch: Any, shared: Any, method: Any) -> Any:
    total = torch.zeros(())
    for j, i in zip(batch.teacher.pairs, batch.student.pairs, strict=True):
        p = _softmax(_logits(batch.teacher.head, batch.teacher.hidden[j]), TEMPERATURE)
        total = total + _kl(p, _softmax(_logits(batch.student.head, batch.student.hidden[i]), TEMPERATURE))
    return (1 - RATE) * _cross_entropy(batch) + RATE * total / len(batch.student.pairs)


def _reference_dual_space(batch: Any, shared: SharedVocabulary, method: Any) -> torch.Tensor:
    projector = method.projectors.teacher_to_student
    to_teacher = torch.linalg.pinv((batch.teacher.head.weight[shared.teacher_ids]).double()) @ (
        batch.student.head.weight[shared.student_ids].double().detach() * batch.student.head.scale
    )
    projector_loss, student_space, teacher_space, aligned, agreed = *torch.zeros(3), 0, 0
    for j, i in zip(batch.teacher.pairs, batch.student.pairs, strict=True):
        teacher_logits = _logits(batch.teacher.head, batch.teacher.hidden[j])
        target = int(shared.student_id_of[int(teacher_logits.argmax())])
        if target < 0:
            continue
        aligned += 1
        projected = _logits(batch.student.head, projector @ batch.teacher.hidden[j], detach=True)
        projector_loss = projector_loss - torch.log(_softmax(projected)[target])
        if int(projected.argmax()) == target:
            agreed += 1
            student_logits = _logits(batch.student.head, batch.student.hidden[i])
            student_space = student_space + _kl(
                _softmax(projected.detach(), TEMPERATURE), _softmax(student_logits, TEMPERATURE)
            )
        mapped = _logits(batch.teacher.head, to_teacher.float() @ batch.student.hidden[i])
        teacher_space = teacher_space + _kl(_softmax(teacher_logits, TEMPERATURE), _softmax(mapped, TEMPERATURE))
    assert 0 < agreed < aligned  # the case exercises the mask
    distillation = projector_loss / aligned + student_space / agreed + teacher_space / aligned
    return (1 - RATE) * _cross_entropy(batch) + RATE * distillation


def _reference_dual_space_v1(batch: Any, shared: SharedVocabulary, method: Any) -> torch.Tensor:
    to_student, to_teacher = method.projectors.teacher_to_student, method.projectors.student_to_teacher
    projector_loss, student_space, teacher_space = torch.zeros(3)
    for j, i in zip(batch.teacher.pairs, batch.student.pairs, strict=True):
        label = batch.student.labels[i]
        teacher_logits = _logits(batch.teacher.head, batch.teacher.hidden[j])
        hidden = to_student.weight @ batch.teacher.hidden[j] + to_student.bias
        projected = _logits(batch.student.head, hidden, detach=True)
        projector_loss = projector_loss - torch.log(_softmax(projected)[label])
        student_logits = _logits(batch.student.head, batch.student.hidden[i])
        student_space = student_space + _kl(
            _softmax(projected.detach(), TEMPERATURE), _softmax(student_logits, TEMPERATURE)
        )
        mapped = _logits(batch.teacher.head, to_teacher.weight @ batch.student.hidden[i] + to_teacher.bias)
        teacher_space = teacher_space + _kl(_softmax(teacher_logits, TEMPERATURE), _softmax(mapped, TEMPERATURE))
    distillation = (projector_loss + student_space + teacher_space) / len(batch.student.labels)
    return (1 - RATE) * _cross_entropy(batch) + RATE * distillation


REFERENCES = {
    "sft": _reference_sft,
    "kd": _reference_kd,
    "dskd-v1": _reference_dual_space_v1,
    "dskd-v2": _reference_dual_space,
    "dskd-v2-eta": _reference_dual_space,
}


def test_every_method_has_a_reference(request: pytest.FixtureRequest) -> None:
    """Here, or in a test that is marked `reference`; known when all files of this folder are collected."""
    items = request.session.items
    if not {*Path(__file__).parent.glob("test_*.py")} <= {item.path for item in items}:
        pytest.skip("run all of tests/dskd/methods")
    compared = {name for item in items for mark in item.iter_markers("reference") for name in mark.args}
    missing = sorted(set(methods.METHODS) - compared)
    assert not missing, f"compare {missing} with a slow reference, in a test marked with @pytest.mark.reference"


def _prepared(name: str) -> tuple[Any, Any, SharedVocabulary, list[torch.Tensor]]:
    kind = methods.get(name)
    options = {"kd_rate": RATE, "temperature": TEMPERATURE} if kind.requires.teacher else {}
    method = kind(options)
    batch, shared = _case(kind.requires.vocabulary == "same" or name == "sft")
    method.prepare(batch.student.head, batch.teacher.head, shared)
    method.on_step_begin(batch.student.head)
    parameters = [batch.student.hidden, batch.student.head.weight, batch.student.head.bias]
    if hasattr(method, "projectors"):
        parameters += method.projectors.parameters()
    return method, batch, shared, parameters


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.reference(name)) for name in REFERENCES])
def test_loss_and_every_gradient_equal_the_slow_reference(name: str) -> None:
    method, batch, shared, parameters = _prepared(name)
    loss = method.objective({key: term.total / term.normalizer for key, term in method.terms(batch).items()})
    gradients = torch.autograd.grad(loss, parameters)
    expected = REFERENCES[name](batch, shared, method)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for ours, slow in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REFERENCES)
def test_counts_alone_are_those_of_the_terms(name: str) -> None:
    method, batch, *_ = _prepared(name)
    counts = method.counts(batch)
    assert {key: term.normalizer.item() for key, term in method.terms(batch).items()} == {
        key: count.item() for key, count in counts.items()
    }


def test_a_step_without_any_aligned_token_has_a_finite_loss_and_gradient() -> None:
    method, batch, _, parameters = _prepared("dskd-v2-eta")
    batch.teacher.pairs = batch.student.pairs = torch.zeros(0, dtype=torch.long)
    terms = method.terms(batch)
    loss = method.objective({key: term.total / term.normalizer.clamp_min(1.0) for key, term in terms.items()})
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    assert torch.isfinite(loss)
    assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)


def test_without_the_agreement_mask_every_aligned_token_counts() -> None:
    method, batch, *_ = _prepared("dskd-v2-eta")
    unmasked = methods.get("dskd-v2-eta")({"agreement_mask": False})
    unmasked.projectors, unmasked.student_id_of = method.projectors, method.student_id_of
    terms = unmasked.terms(batch)
    assert (
        terms["student_space"].normalizer
        == terms["teacher_space"].normalizer
        > method.terms(batch)["student_space"].normalizer
    )


def test_unknown_names_and_options_are_errors_that_name_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'dskd' is not a method; fix: .*dskd-v2-eta"):
        methods.get("dskd")
    with pytest.raises(InputError, match=r"methods\.kd\.tau.*temperature"):
        methods.get("kd")({"tau": 2})
    with pytest.raises(InputError, match=r"methods\.kd\.kd_rate.*less than or equal to 1"):
        methods.get("kd")({"kd_rate": 2})

"""SimCT against a reference in loops, in probability space and float64, and what must hold of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd import methods
from dskd.losses.divergences import DIVERGENCES
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers.grouped_tokens import case, double, gradients, loss
from helpers.token_batches import changed


def prepared(batch: Any, shared: SharedVocabulary, **options: Any) -> Any:
    method = methods.get("simct")(options)
    method.prepare(batch.student.head, batch.teacher.head, shared)
    return method


def _distribution(logits: torch.Tensor, labels: list[int], ids: list[int], span: bool, o: Any) -> torch.Tensor:
    """Of one model over the shared ids and the span that its tokens are, from the logits of these tokens [tokens, vocabulary]."""
    if o.span_score == "logits":
        scores = [logits[0][k] for k in ids]
        of_span = sum(row[label] for row, label in zip(logits, labels, strict=True)) / len(labels)
    else:
        log_q = torch.log_softmax(logits, -1)
        scores = [log_q[0][k] for k in ids]
        of_span = sum(row[label] for row, label in zip(log_q, labels, strict=True)) / len(labels)
    weights = torch.exp(torch.stack([*scores, of_span] if span else scores) / o.temperature)
    return weights / weights.sum()


def reference(batch: Any, shared: SharedVocabulary, o: Any) -> torch.Tensor:
    z = double(batch.student.head).logits(batch.student.hidden.double())
    y = double(batch.teacher.head).logits(batch.teacher.hidden.double())
    distance, groups = torch.zeros((), dtype=torch.double), 0
    for group in range(int(batch.student.groups.max()) + 1):
        students = [i for i, number in enumerate(batch.student.groups.tolist()) if number == group]
        teachers = [j for j, number in enumerate(batch.teacher.groups.tolist()) if number == group]
        span = (len(students), len(teachers)) != (1, 1)
        if o.strict_pairs and span:
            continue
        groups += 1
        own, others = batch.student.labels[students].tolist(), batch.teacher.labels[teachers].tolist()
        pairs = list(zip(shared.teacher_ids.tolist(), shared.student_ids.tolist(), strict=True))
        if o.first_token == "left_out" and span:
            pairs = [(v, k) for v, k in pairs if v != others[0] and k != own[0]]
        q = _distribution(z[students], own, [k for _, k in pairs], span, o)
        p = _distribution(y[teachers], others, [v for v, _ in pairs], span, o)
        a, b = (p, q) if o.divergence == "forward_kl" else (q, p)
        distance = distance + sum(a[n] * torch.log(a[n] / b[n]) for n in range(len(a)))
    rows = double(batch.student.head).logits(batch.student.hidden.double(), padded=True)
    entropy = torch.nn.functional.cross_entropy(rows, batch.student.labels)
    return (1 - o.kd_rate) * entropy + o.kd_rate * distance / groups


@pytest.mark.reference("simct")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"span_score": "logits"},
        {"first_token": "left_out"},
        {"kd_rate": 0.4, "temperature": 2.0, "divergence": "forward_kl"},
        {"strict_pairs": True, "kd_rate": 0.8},
        {"first_token": "left_out", "span_score": "logits", "temperature": 0.7},
    ],
    ids=str,
)
def test_loss_and_gradients_equal_a_reference_in_loops(options: dict[str, Any]) -> None:
    batch, shared = case()
    method = prepared(batch, shared, **options)
    ours, slow = loss(method, batch), reference(batch, shared, method.options)
    torch.testing.assert_close(ours.double(), slow, rtol=1e-5, atol=1e-7)
    for found, expected in zip(gradients(ours, batch), gradients(slow, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_token_that_a_span_begins_with_is_left_out_where_that_is_asked_for() -> None:
    """In the case at hand some span begins with a token of O, so the option changes the loss."""
    batch, shared = case(seed=1)
    labels = batch.student.labels.clone()
    labels[2] = int(shared.student_ids[4])  # the first of a group of three
    batch = changed(batch, student_labels=labels)
    kept, left_out = (loss(prepared(batch, shared, first_token=name), batch).item() for name in ("kept", "left_out"))
    assert abs(kept - left_out) > 1e-3
    assert left_out == pytest.approx(
        reference(batch, shared, methods.get("simct")({"first_token": "left_out"}).options).item(), rel=1e-5
    )


@pytest.mark.parametrize("score", ["log_probabilities", "logits"])
def test_a_batch_split_into_examples_adds_up_to_itself(score: str) -> None:
    whole, shared = case()
    method = prepared(whole, shared, span_score=score, kd_rate=0.6)
    totals, terms = method.counts(whole), method.terms(whole)
    parts = [method.terms(case(examples=[k])[0]) for k in (2, 0, 1)]
    for name, term in terms.items():
        assert term.normalizer == totals[name]
        assert sum(part[name].normalizer for part in parts) == term.normalizer, name
        torch.testing.assert_close(sum(part[name].total for part in parts), term.total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("score", ["log_probabilities", "logits"])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_teacher_that_is_the_student_teaches_nothing_unless_a_token_off(score: str, shift: int) -> None:
    batch, shared = case(same=True)
    batch = changed(batch, teacher_hidden=batch.teacher.hidden.roll(shift, 0))
    value = loss(prepared(batch, shared, span_score=score), batch)
    largest = max(gradient.abs().max().item() for gradient in gradients(value, batch))
    assert (value.item() > 0.01 and largest > 1e-3) if shift else (abs(value.item()) < 1e-6 and largest < 1e-6)


def test_with_one_vocabulary_it_is_the_reverse_kl_divergence_over_it() -> None:
    batch, shared = case(same=True)
    generator = torch.Generator().manual_seed(3)
    numbers = torch.arange(len(batch.student.labels))
    states = batch.teacher.hidden + torch.randn(batch.teacher.hidden.shape, generator=generator)
    batch = changed(batch, student_groups=numbers, teacher_groups=numbers, teacher_hidden=states)
    logits = batch.student.head.logits(batch.student.hidden)
    plain = DIVERGENCES["reverse_kl"](batch.teacher.head.logits(states), logits).mean()
    ours = loss(prepared(batch, shared), batch)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(gradients(ours, batch), gradients(plain, batch), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_a_batch_without_a_group_has_no_distillation() -> None:
    batch, shared = case()
    none = [torch.full_like(side.groups, -1) for side in (batch.student, batch.teacher)]
    batch = changed(batch, student_groups=none[0], teacher_groups=none[1])
    terms = prepared(batch, shared).terms(batch)
    assert terms["distillation"].normalizer == 0
    assert terms["distillation"].total == 0
    assert gradients(terms["distillation"].total, batch)[0].abs().max() == 0

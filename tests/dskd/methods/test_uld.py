"""Universal logit distillation against the authors' code, against loops in float64, and where it must be zero and must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd.losses.chunked import chunked_loss
from dskd.methods import get
from dskd.modeling.lm_head import Head
from helpers import golden
from helpers.token_batches import token_batch


def _head(weight: torch.Tensor, size: Any = None) -> Head:
    return Head(weight, None, 1.0, 0.0, size or len(weight))


def _position_pairs(teacher_sizes: list[int], student_sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = [], []
    first = [0, 0]
    for sizes in zip(teacher_sizes, student_sizes, strict=True):
        for side in range(2):
            pairs[side].extend(range(first[side], first[side] + min(sizes)))
            first[side] += sizes[side]
    return torch.tensor(pairs[0]), torch.tensor(pairs[1])


def _slow_distance(teacher_logits: torch.Tensor, student_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Σ_k |p↓_k − q↓_k| summed over the rows, a rank at a time in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for teacher_row, student_row in zip(teacher_logits, student_logits, strict=True):
        sides = []
        for row in (teacher_row, student_row):
            weights = [torch.exp(logit / temperature) for logit in row.double()]
            sides.append(sorted((weight / sum(weights) for weight in weights), key=lambda w: -w.item()))
        for k in range(max(map(len, sides))):
            values = [side[k] if k < len(side) else torch.zeros((), dtype=torch.float64) for side in sides]
            total = total + (values[0] - values[1]).abs()
    return total


@pytest.mark.reference("uld")
@pytest.mark.parametrize("sizes", [(13, 19), (19, 13), (13, 13)], ids=["wide teacher", "wide student", "equal"])
def test_loss_and_gradient_equal_a_slow_reference(sizes: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    student, teacher = sizes
    student_head = Head(torch.randn(student + 2, 5, generator=generator).requires_grad_(), None, 0.8, 0.0, student)
    teacher_head = Head(torch.randn(teacher + 1, 7, generator=generator), None, 1.0, 3.0, teacher)
    pairs = _position_pairs([4, 3], [3, 5])
    assert pairs[0].tolist() == [0, 1, 2, 4, 5, 6]
    assert pairs[1].tolist() == [0, 1, 2, 3, 4, 5]
    batch = token_batch(
        student_head,
        torch.randn(8, 5, generator=generator).requires_grad_(),
        torch.randint(0, student, (8,), generator=generator),
        teacher_head,
        torch.randn(7, 7, generator=generator),
        torch.randint(0, teacher, (7,), generator=generator),
        *pairs,
    )
    method = get("uld")({"kd_rate": 0.3, "temperature": 1.7})
    terms = method.terms(batch)
    loss = method.objective({name: term.total / term.normalizer for name, term in terms.items()})
    leaves = [batch.student.hidden, student_head.weight]
    logits = (batch.student.hidden @ student_head.weight.T) * 0.8
    teacher_logits = torch.tanh(batch.teacher.hidden @ teacher_head.weight[:teacher].T / 3.0) * 3.0
    label_log_probabilities = logits.double().log_softmax(-1)[torch.arange(8), batch.student.labels]
    slow = _slow_distance(teacher_logits[pairs[0]], logits[pairs[1], :student], 1.7)
    expected = 0.7 * -label_log_probabilities.sum() / 8 + 0.3 * slow / 6
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, theirs.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk_tokens", [None, 1, 4])
@pytest.mark.parametrize("case", golden.cases("uld"), ids=lambda case: case["name"])
def test_the_terms_equal_those_of_the_dskd_authors(case: dict[str, Any], chunk_tokens: int | None) -> None:
    values = golden.tensors(case)
    masks = values["in/labels"] != -100, values["in/teacher_labels"] != -100
    batch = token_batch(
        _head(values["in/student_head"].clone().requires_grad_()),
        values["in/student_hidden"][masks[0]].requires_grad_(),
        values["in/labels"][masks[0]],
        _head(values["in/teacher_head"]),
        values["in/teacher_hidden"][masks[1]],
        values["in/teacher_labels"][masks[1]],
        *_position_pairs(masks[1].sum(1).tolist(), masks[0].sum(1).tolist()),
    )
    method = get("uld")({"kd_rate": case["kd_rate"]})
    # They divide both sums by the student's labelled tokens, ours by the pairs.
    totals = dict.fromkeys(("cross_entropy", "distillation"), torch.tensor(case["denominator"]))
    if chunk_tokens is None:
        terms = method.terms(batch)
        loss = method.objective({name: term.total / totals[name] for name, term in terms.items()})
    else:
        loss, terms = chunked_loss(method, batch, totals, chunk_tokens=chunk_tokens)
    assert terms["cross_entropy"].total.item() / case["denominator"] == pytest.approx(
        case["terms"]["nll_loss"], rel=1e-5
    )
    assert terms["distillation"].total.item() / case["denominator"] == pytest.approx(
        case["terms"]["uld_loss"], rel=1e-5
    )
    assert loss.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)


@pytest.mark.parametrize("case", golden.cases("uld_original"), ids=lambda case: case["name"])
def test_value_and_gradient_equal_the_first_authors_code(case: dict[str, Any]) -> None:
    """Theirs is a mean over each answer's pairs and then over answers, so each answer is a batch here."""
    values = golden.tensors(case)
    options = case["parameters"]
    sides = ("teacher", "student") if case.get("swapped") else ("student", "teacher")
    logits = [values[f"in/{side}_logits"] for side in sides]
    labels = [values[f"in/{side}_labels"] for side in sides]
    student_temperature = options.get("student_temperature", 1.0)
    weight = options.get("distillation_weight", 1.0)
    logits[0] = logits[0].clone().requires_grad_()
    logits[1] = logits[1] * student_temperature / options.get("teacher_temperature", 1.0)
    method = get("uld")({"distillation_weight": weight, "temperature": student_temperature})
    total = torch.zeros(())
    for k in range(len(labels[0])):
        places = [(side[k] != -100).nonzero().flatten() for side in labels]
        for side, name in enumerate(("student", "teacher")):
            if options.get(f"skip_{name}_eos"):
                places[side] = places[side][:-1]
        hidden = [side[k][where - 1] for side, where in zip(logits, places, strict=True)]  # what predicts the label
        batch = token_batch(
            _head(torch.eye(hidden[0].shape[-1])),
            hidden[0],
            labels[0][k][places[0]],
            _head(torch.eye(hidden[1].shape[-1])),
            hidden[1],
            labels[1][k][places[1]],
            *_position_pairs([len(places[1])], [len(places[0])]),
        )
        term = method.terms(batch)["distillation"]
        means = {"cross_entropy": torch.zeros(()), "distillation": term.total / term.normalizer}
        total = total + method.objective(means) / len(labels[0])
    assert total.item() == pytest.approx(case["terms"]["distillation_loss"], rel=1e-5)
    (gradient,) = torch.autograd.grad(total, logits[0])
    torch.testing.assert_close(gradient, values["grad/student_logits"], rtol=1e-5, atol=1e-6)


def _of_itself(shift: int) -> tuple[Any, torch.Tensor]:
    """A student that is its own teacher, whose tokens are paired `shift` places off."""
    generator = torch.Generator().manual_seed(1)
    head = _head(torch.randn(29, 6, generator=generator))
    hidden = torch.randn(9, 6, generator=generator)
    labels = torch.randint(0, 29, (9,), generator=generator)
    student = hidden.clone().requires_grad_()
    pairs = torch.arange(shift, 9), torch.arange(9 - shift)
    return token_batch(head, student, labels, head, hidden, labels, *pairs), student


def test_a_student_that_is_its_teacher_learns_nothing_unless_tokens_are_shifted() -> None:
    batch, student = _of_itself(0)
    term = get("uld")().terms(batch)["distillation"]
    assert term.total.item() == 0.0
    assert torch.autograd.grad(term.total, student)[0].abs().max() == 0.0
    batch, student = _of_itself(1)
    term = get("uld")().terms(batch)["distillation"]
    assert term.total.item() > 0.1
    assert torch.autograd.grad(term.total, student)[0].abs().max() > 1e-3


def test_the_weight_of_the_original_objective_replaces_the_rate() -> None:
    means = {"cross_entropy": torch.tensor(2.0), "distillation": torch.tensor(0.5)}
    assert get("uld")({"distillation_weight": 1.5}).objective(means).item() == 2.75
    assert get("uld")({"kd_rate": 0.25}).objective(means).item() == 1.625

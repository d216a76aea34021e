"""DSKD v1 against the authors' own code: every term, and every gradient of the loss, unfused and fused."""

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
from helpers.token_batches import changed, token_batch

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
NAMES = {
    "nll_loss": "cross_entropy",
    "t2s_ce_loss": "teacher_to_student_cross_entropy",
    "t2s_kd_loss": "student_space",
    "s2t_kd_loss": "teacher_space",
    "t2s_acc": "teacher_to_student_accuracy",
}
MAPS = (("teacher_to_student", "t2s"), ("student_to_teacher", "s2t"))
CASES = golden.cases("dskd_v1")


def _prepared(case: dict[str, Any], **options: Any) -> tuple[Any, ...]:
    """(golden tensors, the leaf of the student's hidden states, student's head, projectors, batch, method)."""
    values = golden.tensors(case)
    labels = values["in/labels"]
    size = len(values["in/student_head"])
    hidden = values["in/student_hidden"].clone().requires_grad_()
    student_head = Head(values["in/student_head"].clone().requires_grad_(), None, 1.0, 0.0, size)
    teacher_head = Head(values["in/teacher_head"], None, 1.0, 0.0, size)
    ids = np.arange(size)
    method = get("dskd-v1")(
        {
            "divergence": case["divergence"],
            "teacher_space_divergence": "forward_kl",
            "temperature": case["temperature"],
            "kd_rate": case["kd_rate"],
        }
        | options
    )
    projectors = method.prepare(student_head, teacher_head, SharedVocabulary(ids, ids, ids, same=True))
    for ours, theirs in MAPS:
        linear = getattr(projectors, ours)
        linear.weight.data.copy_(values[f"in/{theirs}_weight"])
        linear.bias.data.copy_(values[f"in/{theirs}_bias"])
    method.on_step_begin(student_head)
    labelled = labels != -100
    tokens = torch.arange(int(labelled.sum()))
    batch = token_batch(
        student_head,
        hidden[labelled],
        labels[labelled],
        teacher_head,
        values["in/teacher_hidden"][labelled],
        labels[labelled],
        tokens,
        tokens,
    )
    return values, hidden, student_head, projectors, batch, method


@pytest.mark.parametrize("chunk_tokens", [None, 1, 3, 1000], ids=["unfused", "chunks of 1", "chunks of 3", "one chunk"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_term_and_gradient_equals_the_published_code(case: dict[str, Any], chunk_tokens: int | None) -> None:
    values, hidden, student_head, projectors, batch, method = _prepared(case)
    totals = method.counts(batch)
    if chunk_tokens is None:
        terms = method.terms(batch)
        loss = method.objective({name: term.total / term.normalizer for name, term in terms.items()})
    else:
        loss, terms = chunked_loss(method, batch, totals, list(projectors.parameters()), chunk_tokens)
    loss.backward()
    for theirs, ours in NAMES.items():
        assert totals[ours] == terms[ours].normalizer == case["denominator"]
        assert (terms[ours].total / terms[ours].normalizer).item() == pytest.approx(case["terms"][theirs], rel=1e-5), (
            theirs
        )
    assert loss.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    gradients = {
        "student_hidden": hidden.grad,
        "student_head": student_head.weight.grad,
        "t2s_weight": projectors.teacher_to_student.weight.grad,
        "t2s_bias": projectors.teacher_to_student.bias.grad,
        "s2t_weight": projectors.student_to_teacher.weight.grad,
        "s2t_bias": projectors.student_to_teacher.bias.grad,
    }
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, values[f"grad/{name}"], **TOLERANCE)


def test_the_published_code_ignores_the_divergence_in_the_teachers_space_and_this_does_not_unless_told() -> None:
    (case,) = (case for case in CASES if case["divergence"] == "reverse_kl")
    *_, batch, method = _prepared(case, teacher_space_divergence=None)
    term = method.terms(batch)["teacher_space"]
    assert abs(term.total / term.normalizer - case["terms"]["s2t_kd_loss"]) > 1e-3


@pytest.mark.parametrize("chunk_tokens", [None, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_two_ablations_add_up_to_the_published_loss(case: dict[str, Any], chunk_tokens: int | None) -> None:
    """Each has the cross entropy on labels too, so their gradients together have it twice."""
    total, gradients = 0.0, {}
    for spaces in ("student", "teacher"):
        values, hidden, student_head, projectors, batch, method = _prepared(case, spaces=spaces)
        unused = "student_to_teacher" if spaces == "student" else "teacher_to_student"
        assert not any(parameter.requires_grad for parameter in getattr(projectors, unused).parameters())
        if chunk_tokens is None:
            loss = method.objective({name: term.total / term.normalizer for name, term in method.terms(batch).items()})
        else:
            loss, _ = chunked_loss(method, batch, method.counts(batch), list(projectors.parameters()), chunk_tokens)
        loss.backward()
        total += loss.item()
        found = {
            "student_hidden": hidden.grad,
            "student_head": student_head.weight.grad,
            **{f"{theirs}_weight": getattr(projectors, ours).weight.grad for ours, theirs in MAPS},
            **{f"{theirs}_bias": getattr(projectors, ours).bias.grad for ours, theirs in MAPS},
        }
        for name, gradient in found.items():
            gradients[name] = gradients.get(name, 0.0) + (0.0 if gradient is None else gradient)
    labels, rate = values["in/labels"], case["kd_rate"]
    hidden.grad = student_head.weight.grad = None
    logits = torch.nn.functional.linear(hidden[labels != -100], student_head.weight)
    supervised = (1 - rate) * torch.nn.functional.cross_entropy(logits, labels[labels != -100])
    supervised.backward()
    gradients["student_hidden"] -= hidden.grad
    gradients["student_head"] -= student_head.weight.grad
    assert total - supervised.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, values[f"grad/{name}"], **TOLERANCE)


def test_one_space_takes_no_product_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    logits = Head.logits

    def watched(self: Head, hidden: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append("trained" if self.weight.requires_grad else "frozen")
        return logits(self, hidden, **options)

    monkeypatch.setattr(Head, "logits", watched)
    for spaces, expected in (("student", ["frozen", "trained"]), ("teacher", ["frozen", "frozen", "trained"])):
        *_, batch, method = _prepared(CASES[0], spaces=spaces)
        seen.clear()
        counts, terms = method.counts(batch), method.terms(batch)
        assert sorted(seen) == expected
        assert set(counts) == set(terms)


def test_a_teacher_that_is_the_student_teaches_nothing_in_its_space_and_its_shift_does() -> None:
    *_, batch, method = _prepared(CASES[0], spaces="teacher", kd_rate=1.0)
    head = batch.student.head
    method.projectors.student_to_teacher = torch.nn.Linear(head.weight.shape[1], head.weight.shape[1])
    torch.nn.init.eye_(method.projectors.student_to_teacher.weight)
    torch.nn.init.zeros_(method.projectors.student_to_teacher.bias)
    for shift, least, most in ((0, 0.0, 1e-6), (1, 1e-3, 1e3)):
        hidden = batch.student.hidden.detach().requires_grad_()
        teacher = batch.student.hidden.detach().roll(shift, 0)
        same = changed(batch, student_hidden=hidden, teacher_head=head.detach(), teacher_hidden=teacher)
        loss = method.objective({name: term.total / term.normalizer for name, term in method.terms(same).items()})
        loss.backward()
        assert least <= abs(loss.item()) <= most
        assert least <= hidden.grad.abs().max() <= most

"""DSKD v1 against the authors' own code: every term, and every gradient of the loss, unfused and fused."""

from __future__ import annotations

import golden
import numpy as np
import pytest
import torch

from dskd.fused import fused_loss
from dskd.heads import Head
from dskd.methods import LabelledTokens, get
from dskd.vocabulary import SharedVocabulary

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
NAMES = {
    "nll_loss": "cross_entropy",
    "t2s_ce_loss": "teacher_to_student_cross_entropy",
    "t2s_kd_loss": "student_space",
    "s2t_kd_loss": "teacher_space",
    "t2s_acc": "teacher_to_student_accuracy",
}
CASES = golden.cases("dskd_v1")


def _prepared(case, **options):
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
    for ours, theirs in (("teacher_to_student", "t2s"), ("student_to_teacher", "s2t")):
        linear = getattr(projectors, ours)
        linear.weight.data.copy_(values[f"in/{theirs}_weight"])
        linear.bias.data.copy_(values[f"in/{theirs}_bias"])
    method.begin_step(student_head)
    labelled = labels != -100
    tokens = torch.arange(int(labelled.sum()))
    batch = LabelledTokens(
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
def test_every_term_and_gradient_equals_the_published_code(case, chunk_tokens):
    values, hidden, student_head, projectors, batch, method = _prepared(case)
    totals = method.counts(batch)
    if chunk_tokens is None:
        terms = method.terms(batch)
        loss = method.objective({name: term.sum / term.count for name, term in terms.items()})
    else:
        loss, terms = fused_loss(method, batch, totals, list(projectors.parameters()), chunk_tokens)
    loss.backward()
    for theirs, ours in NAMES.items():
        assert totals[ours] == terms[ours].count == case["denominator"]
        assert (terms[ours].sum / terms[ours].count).item() == pytest.approx(case["terms"][theirs], rel=1e-5), theirs
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


def test_the_published_code_ignores_the_divergence_in_the_teachers_space_and_this_does_not_unless_told():
    (case,) = (case for case in CASES if case["divergence"] == "reverse_kl")
    *_, batch, method = _prepared(case, teacher_space_divergence=None)
    term = method.terms(batch)["teacher_space"]
    assert abs(term.sum / term.count - case["terms"]["s2t_kd_loss"]) > 1e-3

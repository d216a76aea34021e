"""DSKD v2, with and without alignment, against the authors' own code: every term and every gradient, unfused and fused."""

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
    "t2s_agreement": "agreement",
}


def _flat_pairs(values, case):
    """Pairs of one example each, as indices into the labelled tokens of the whole batch."""
    teacher, student, first = [], [], [0, 0]
    for k in range(values["in/labels"].shape[0]):
        pairs = values[f"pairs/{k}"]
        teacher.append(pairs[0] + first[0])
        student.append(pairs[1] + first[1])
        first[0] += int((values["in/teacher_labels"][k] != -100).sum())
        first[1] += int((values["in/labels"][k] != -100).sum())
    return torch.cat(teacher), torch.cat(student)


def _run(case, chunk_tokens=None, *, counted=True):
    """The case's tensors and what ours makes of them: unfused, or fused in chunks of so many tokens.

    `counted`: whether the fused loss is given the counts, as for a part of a step, or finds them, as for a whole one.
    """
    values = golden.tensors(case)
    aligned = case["kind"] == "dskd_v2_eta"
    labels = values["in/labels"]
    teacher_labels = values["in/teacher_labels"] if aligned else labels
    hidden = values["in/student_hidden"].clone().requires_grad_()
    student_head = Head(
        values["in/student_head"].clone().requires_grad_(), None, 1.0, 0.0, len(values["in/student_head"])
    )
    teacher_head = Head(values["in/teacher_head"], None, 1.0, 0.0, len(values["in/teacher_head"]))
    if aligned:
        shared = SharedVocabulary(*values["shared"].numpy(), values["student_id_of"].numpy(), same=False)
        teacher_pairs, student_pairs = _flat_pairs(values, case)
    else:
        ids = np.arange(student_head.size)
        shared = SharedVocabulary(ids, ids, ids, same=True)
        teacher_pairs = student_pairs = torch.arange(int((labels != -100).sum()))
    method = get("dskd-v2-eta" if aligned else "dskd-v2")(
        {"divergence": case["divergence"], "temperature": case["temperature"], "kd_rate": case["kd_rate"]}
    )
    projectors = method.prepare(student_head, teacher_head, shared)
    start = projectors.teacher_to_student.detach().clone()
    projectors.teacher_to_student.data.copy_(values["in/t2s"])
    method.begin_step(student_head)
    batch = LabelledTokens(
        student_head,
        hidden[labels != -100],
        labels[labels != -100],
        teacher_head,
        values["in/teacher_hidden"][teacher_labels != -100],
        teacher_labels[teacher_labels != -100],
        teacher_pairs,
        student_pairs,
    )
    if chunk_tokens is None:
        terms = method.terms(batch)
        means = {name: term.sum / term.count for name, term in terms.items()}
        loss = method.objective(means)
    else:
        totals = method.counts(batch) if counted else None
        loss, terms = fused_loss(method, batch, totals, list(projectors.parameters()), chunk_tokens)
        means = {name: term.sum / term.count for name, term in terms.items()}
    loss.backward()
    gradients = {
        "student_hidden": hidden.grad,
        "student_head": student_head.weight.grad,
        "t2s": projectors.teacher_to_student.grad,
    }
    return values, start, projectors, batch, method, means, loss, gradients


CASES = golden.cases("dskd_v2") + golden.cases("dskd_v2_eta")


WAYS = {
    "unfused": {},
    **{f"chunks of {tokens}": {"chunk_tokens": tokens} for tokens in (1, 3, 1000)},
    **{f"a whole step in chunks of {tokens}": {"chunk_tokens": tokens, "counted": False} for tokens in (1, 3, 1000)},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_every_term_and_gradient_equals_the_published_code(case, way):
    values, _, _, _, _, means, loss, gradients = _run(case, **WAYS[way])
    for theirs, ours in NAMES.items():
        assert means[ours].item() == pytest.approx(case["terms"][theirs], rel=1e-5), theirs
    assert loss.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, values[f"grad/{name}"], **TOLERANCE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_projectors_start_from_and_follow_the_pseudo_inverse(case):
    values, start, projectors, *_ = _run(case)
    # The published pseudo-inverse is a float32 SVD, whose own error is of this size.
    torch.testing.assert_close(projectors.student_to_teacher, values["in/s2t"], rtol=1e-4, atol=5e-5)
    if not case["name"].endswith("moved"):  # there the head has moved since the projector was fitted
        torch.testing.assert_close(start, values.get("in/t2s_initial", values["in/t2s"]), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_counts_alone_equal_the_counts_of_the_terms(case):
    _, _, _, batch, method, *_ = _run(case)
    counts = method.counts(batch)
    for name, term in method.terms(batch).items():
        assert counts[name].item() == term.count.item(), name

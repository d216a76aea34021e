"""DSKD v2, with and without alignment, against the authors' own code: every term and every gradient, unfused and fused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

import dskd.methods.dskd_v2 as core
import dskd.upstream.methods as upstream
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
    "t2s_agreement": "agreement",
}


def _flat_pairs(values: dict[str, torch.Tensor], case: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of one example each, as indices into the labelled tokens of the whole batch."""
    teacher, student, first = [], [], [0, 0]
    for k in range(values["in/labels"].shape[0]):
        pairs = values[f"pairs/{k}"]
        teacher.append(pairs[0] + first[0])
        student.append(pairs[1] + first[1])
        first[0] += int((values["in/teacher_labels"][k] != -100).sum())
        first[1] += int((values["in/labels"][k] != -100).sum())
    return torch.cat(teacher), torch.cat(student)


def _tokenizer(side: Any) -> Any:
    """Of the tokenizers that the published look-up was run on."""
    file = golden.SHARED / f"eta_{side}_tokenizer.json"
    if not file.is_file():
        pytest.skip("the published code's tokenizers are not here")
    return PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=f"<|{side}_end|>")


def _run(
    case: dict[str, Any], chunk_tokens: int | None = None, *, counted: bool = True, **options: Any
) -> tuple[Any, ...]:
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
    published = options.get("upstream_parity", "none") != "none"
    classes = upstream if "upstream_parity" in options else core
    kind = classes.DualSpaceV2ExactTokenAlignment if aligned else classes.DualSpaceV2
    method = kind(
        {"divergence": case["divergence"], "temperature": case["temperature"], "kd_rate": case["kd_rate"]} | options
    )
    if published and aligned:
        method.use_tokenizers(_tokenizer("student"), _tokenizer("teacher"))
    projectors = method.prepare(student_head, teacher_head, shared)
    start = projectors.teacher_to_student.detach().clone()
    projectors.teacher_to_student.data.copy_(values["in/t2s"])
    method.on_step_begin(student_head)
    batch = token_batch(
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
        means = {name: term.total / term.normalizer for name, term in terms.items()}
        loss = method.objective(means)
    else:
        totals = method.counts(batch) if counted else None
        loss, terms = chunked_loss(method, batch, totals, list(projectors.parameters()), chunk_tokens)
        means = {name: term.total / term.normalizer for name, term in terms.items()}
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
def test_every_term_and_gradient_equals_the_published_code(case: dict[str, Any], way: str) -> None:
    values, _, _, _, _, means, loss, gradients = _run(case, **WAYS[way])
    for theirs, ours in NAMES.items():
        assert means[ours].item() == pytest.approx(case["terms"][theirs], rel=1e-5), theirs
    assert loss.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, values[f"grad/{name}"], **TOLERANCE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_projectors_start_from_and_follow_the_pseudo_inverse(case: dict[str, Any]) -> None:
    values, start, projectors, *_ = _run(case)
    # The published pseudo-inverse is a float32 SVD, whose own error is of this size.
    torch.testing.assert_close(projectors.student_to_teacher, values["in/s2t"], rtol=1e-4, atol=5e-5)
    if not case["name"].endswith("moved"):  # there the head has moved since the projector was fitted
        torch.testing.assert_close(start, values.get("in/t2s_initial", values["in/t2s"]), rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_counts_alone_equal_the_counts_of_the_terms(case: dict[str, Any]) -> None:
    _, _, _, batch, method, *_ = _run(case)
    counts = method.counts(batch)
    for name, term in method.terms(batch).items():
        assert counts[name].item() == term.normalizer.item(), name


@pytest.mark.parametrize("way", ["unfused", "chunks of 1000", "a whole step in chunks of 1000"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_two_ablations_add_up_to_the_published_loss(case: dict[str, Any], way: str) -> None:
    """Each has the cross entropy on labels too, so their gradients together have it twice."""
    total, gradients = 0.0, {}
    for spaces in ("student", "teacher"):
        values, _, projectors, batch, method, _, loss, found = _run(case, **WAYS[way], spaces=spaces)
        assert projectors.teacher_to_student.requires_grad == (spaces == "student")
        total += loss.item()
        for name, gradient in found.items():
            gradients[name] = gradients.get(name, 0.0) + (0.0 if gradient is None else gradient)
        counts = method.counts(batch)
        assert {name: term.normalizer.item() for name, term in method.terms(batch).items()} == {
            name: count.item() for name, count in counts.items()
        }
    labels, rate = values["in/labels"], case["kd_rate"]
    hidden = values["in/student_hidden"].clone().requires_grad_()
    weight = values["in/student_head"].clone().requires_grad_()
    logits = torch.nn.functional.linear(hidden[labels != -100], weight)
    supervised = (1 - rate) * torch.nn.functional.cross_entropy(logits, labels[labels != -100])
    supervised.backward()
    gradients["student_hidden"] -= hidden.grad
    gradients["student_head"] -= weight.grad
    assert total - supervised.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, values[f"grad/{name}"], **TOLERANCE)


# Head products of a whole step in one chunk, in two passes: by the student's trained head, and by frozen ones.
@pytest.mark.parametrize(
    ("spaces", "known", "frozen"),
    [("both", False, 3), ("student", False, 2), ("student", True, 1), ("teacher", True, 2)],
)
def test_no_product_is_taken_for_a_space_that_is_left_out(
    monkeypatch: pytest.MonkeyPatch, spaces: str, known: bool, frozen: int
) -> None:
    _, _, projectors, batch, method, *_ = _run(CASES[0], spaces=spaces)
    if known:
        predictions = batch.teacher.head.logits(batch.teacher.hidden).argmax(-1)
        batch = changed(batch, teacher_predictions=predictions)
    seen = []
    logits = Head.logits

    def watched(self: Head, hidden: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(options.get("padded", False))  # only the trained head's logits are padded
        return logits(self, hidden, **options)

    monkeypatch.setattr(Head, "logits", watched)
    chunked_loss(method, batch, None, list(projectors.parameters()), 1000)
    assert sorted(seen) == [False] * frozen + [True]


@pytest.mark.parametrize("parity", ["dskdv2", "kdflow"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_published_denominators_average_the_means_of_micro_batches(case: dict[str, Any], parity: str) -> None:
    """Of one micro-batch they are ours; of two, each counts the same, however many tokens it has."""
    _, _, _, whole, ours, *_ = _run(case)
    method = _run(case, upstream_parity=parity)[4]
    assert not method.requires.chunkable
    split = len(whole.student.labels) // 3
    parts = [whole.part(0, split), whole.part(split, len(whole.student.labels))]
    averaged = {"student_space"}
    if case["kind"] == "dskd_v2_eta":
        averaged |= {"teacher_to_student_cross_entropy", "teacher_space"}
    found = [method.terms(part) for part in parts]
    plain = [ours.terms(part) for part in parts]
    for name in plain[0]:
        mean = sum(part[name].total for part in found) / sum(part[name].normalizer for part in found)
        if name in averaged:
            expected = sum(part[name].total / part[name].normalizer for part in plain) / 2
        else:
            expected = sum(part[name].total for part in plain) / sum(part[name].normalizer for part in plain)
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)
        assert sum(method.counts(part)[name] for part in parts) == sum(part[name].normalizer for part in found)
    assert sum(part["student_space"].normalizer for part in found) == 2


def test_kdflow_projects_with_the_head_as_it_was_at_the_start() -> None:
    batches = {}
    for parity in ("none", "kdflow"):
        _, _, projectors, batch, method, *_ = _run(CASES[0], upstream_parity=parity)
        start = projectors.student_to_teacher.clone()
        before = method.terms(batch)
        batch.student.head.weight.data.mul_(torch.linspace(0.5, 1.5, batch.student.head.size)[:, None])
        method.on_step_begin(batch.student.head)
        batches[parity] = before, method.terms(batch), torch.equal(projectors.student_to_teacher, start)
    (before, stale, kept), (_, live, followed) = batches["kdflow"], batches["none"]
    assert kept
    assert not followed
    for name in ("teacher_to_student_cross_entropy", "teacher_space"):
        assert stale[name].total == before[name].total != live[name].total
    assert stale["cross_entropy"].total == live["cross_entropy"].total != before["cross_entropy"].total


def test_a_micro_batch_without_a_pair_adds_nothing_but_its_share_of_the_mean() -> None:
    *_, batch, method, _, _, _ = _run(golden.cases("dskd_v2_eta")[0], upstream_parity="dskdv2")
    nothing = changed(batch, teacher_pairs=batch.teacher.pairs[:0], student_pairs=batch.student.pairs[:0])
    terms = method.terms(nothing)
    for name in ("teacher_to_student_cross_entropy", "student_space", "teacher_space"):
        assert (terms[name].total.item(), terms[name].normalizer.item()) == (0.0, 1.0)


@pytest.mark.parametrize("name", ["dskd-v2", "dskd-v2-eta"])
def test_a_teacher_that_is_the_student_teaches_nothing_and_its_shift_does(name: str) -> None:
    generator = torch.Generator().manual_seed(6)
    head = Head(torch.randn(40, 8, generator=generator), None, 1.0, 0.0, 40)
    states = torch.randn(12, 8, generator=generator)
    ids, tokens = np.arange(40), torch.arange(12)
    method = get(name)({"kd_rate": 1.0})
    method.prepare(head, head, SharedVocabulary(ids, ids, ids, same=True))
    for shift, least, most in ((0, 0.0, 1e-5), (1, 1e-2, 1e2)):
        hidden = states.clone().requires_grad_()
        batch = token_batch(head, hidden, tokens, head, states.roll(shift, 0), tokens, tokens, tokens)
        terms = method.terms(batch)
        assert terms["agreement"].total == terms["agreement"].normalizer == 12
        method.objective({name: term.total / term.normalizer for name, term in terms.items()}).backward()
        assert least <= hidden.grad.abs().max() <= most

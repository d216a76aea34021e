"""SimCT against values and gradients of the released code, on its segments, and against the paper's formula on byte groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dskd import methods
from dskd.losses.token_groups import groups_of
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers import golden
from helpers.token_batches import token_batch

TEACHER_TOKENS = 640


def _overlap(case: dict[str, Any]) -> SharedVocabulary:
    """O as released: equal spellings, of which three here are no equal bytes ("°" is a byte of the byte-level alphabet), and the ends."""
    stored = golden.tensors({"name": case["inputs"], "kind": ""})
    ids = [stored[f"overlap_{side}"].numpy().astype(np.int64) for side in ("teacher", "student")]
    return SharedVocabulary(*ids, np.full(TEACHER_TOKENS, -1), same=False)


def _side(given: dict[str, Tensor], side: str, segments: list[Any], first: int) -> tuple[Any, ...]:
    """(text, place) of the rows of the response, their labels and the numbers of their segments."""
    texts, places = given[f"in/{side}_loss_mask"].nonzero(as_tuple=True)
    labels = given[f"in/{side}_ids"][texts, places + 1].long()
    numbers, number = torch.full((len(texts),), -1), 0
    for text, own in enumerate(segments):
        begin = int((texts < text).sum())
        for segment in own:
            numbers[begin + segment[first] : begin + segment[first + 1]] = number
            number += 1
    return texts, places, labels, numbers


def _run(case: dict[str, Any], segments: list[Any], shared: SharedVocabulary, **options: Any) -> tuple[Any, ...]:
    """(method, batch, leaves, which rows are the student's)."""
    given = golden.tensors(case)
    hidden = given["in/student_hidden"].clone().requires_grad_()
    weight = given["in/student_head"].clone().requires_grad_()
    head = Head(weight, None, 1.0, 0.0, len(weight))
    teacher_head = Head(given["in/teacher_head"], None, 1.0, 0.0, TEACHER_TOKENS)
    texts, places, labels, numbers = _side(given, "student", segments, 2)
    other_texts, other_places, other_labels, other_numbers = _side(given, "teacher", segments, 0)
    batch = token_batch(
        head,
        hidden[texts, places],
        labels,
        teacher_head,
        given["in/teacher_hidden"][other_texts, other_places],
        other_labels,
        student_groups=numbers,
        teacher_groups=other_numbers,
    )
    method = methods.get("simct")(options)
    method.prepare(head, teacher_head, shared)
    return method, batch, [hidden, weight], given


def _compare(case: dict[str, Any], given: dict[str, Tensor], loss: Tensor, leaves: list[Tensor]) -> None:
    assert loss.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    for found, name in zip(torch.autograd.grad(loss, leaves), ("student_hidden", "student_head"), strict=True):
        theirs = given[f"grad/{name}"]
        assert (found - theirs).norm() <= 1e-5 * theirs.norm(), name


@pytest.mark.parametrize("case", golden.cases("simct"), ids=lambda case: case["name"])
def test_values_and_gradients_of_the_released_code(case: dict[str, Any]) -> None:
    config = case["config"]
    name = {"rkl": "reverse_kl", "kl": "forward_kl"}[config["kd_loss_fn"]]
    options = {"span_score": "logits", "divergence": name, "temperature": config["kd_temperature"]}
    method, batch, leaves, given = _run(case, case["segments"], _overlap(case), **options)
    terms = method.terms(batch)
    segments = sum(map(len, case["segments"]))
    assert terms["distillation"].normalizer == segments
    stored = [given[f"segment_loss/{k}"] for k, own in enumerate(case["segments"]) if own]
    assert terms["distillation"].total.item() == pytest.approx(torch.cat(stored).sum().item(), rel=1e-5)
    rate, divisor = config["kd_ratio"], case["denominator"]  # it divides by tokens, ours by segments
    loss = rate * terms["distillation"].total / divisor + (1 - rate) * terms["cross_entropy"].total / divisor
    _compare(case, given, loss, leaves)


@pytest.mark.parametrize("case", golden.cases("simct_paper"), ids=lambda case: case["name"])
def test_the_formula_of_the_paper_on_byte_groups(case: dict[str, Any]) -> None:
    method, batch, leaves, given = _run(case, case["groups"], _overlap(case))
    terms, counts = method.terms(batch), method.counts(batch)
    assert counts["distillation"] == case["denominator"]
    loss = method.objective({name: term.total / counts[name] for name, term in terms.items()})
    _compare(case, given, loss, leaves)
    student, teacher = groups_of(batch)
    left_out = method._left_out(batch, student, teacher)
    with torch.no_grad():
        scores = [
            method._scores(side, groups, side.head.logits(side.hidden), ids, left_out)
            for side, groups, ids in (
                (batch.teacher, teacher, method.teacher_ids),
                (batch.student, student, method.student_ids),
            )
        ]
        each = method.options.distance()(*scores)[: case["denominator"]]
    torch.testing.assert_close(each, given["group_loss"], rtol=1e-5, atol=1e-6)

"""Batches of random hidden states for any method, and golden logits as a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dskd.data.collator import pairs_by_position
from dskd.methods.base import reads_step_statistics
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers.token_batches import changed, token_batch

HEADS = {
    "plain": {"bias": False, "scale": 1.0, "softcap": 0.0},
    "bias": {"bias": True, "scale": 1.0, "softcap": 0.0},
    "scale": {"bias": False, "scale": 0.3, "softcap": 0.0},
    "softcap": {"bias": True, "scale": 1.7, "softcap": 5.0},
}


def case(
    method: Any,
    *,
    tokens: int = 37,
    head: str = "plain",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    aligned: bool = True,
    frozen: bool = False,
) -> tuple[Any, ...]:
    """A prepared method with a batch of random hidden states, and the leaves that gradients are asked of."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    kind = HEADS[head]
    same = method.requires.vocabulary == "same"
    size, teacher_size = 53, 53 if same else 61

    def make(rows: int, size: int, hidden: int) -> Head:
        bias = 0.1 * random(rows) if kind["bias"] else None
        return Head(random(rows, hidden), bias, kind["scale"], kind["softcap"], size)

    student_head, teacher_head = make(size + 3, size, 11), make(teacher_size + 5, teacher_size, 17)
    student_head.weight.requires_grad_(not frozen)
    if student_head.bias is not None:
        student_head.bias.requires_grad_(not frozen)
    if same:
        ids = np.arange(size)
        shared = SharedVocabulary(ids, ids, ids, same=True)
        pairs = torch.arange(tokens), torch.arange(tokens)
    else:
        student_id_of = np.full(teacher_size, -1)
        student_id_of[5:45] = np.arange(3, 43)
        shared = SharedVocabulary(np.arange(5, 45), np.arange(3, 43), student_id_of, same=False)
        student_tokens = torch.arange(0, tokens, 2) if aligned else torch.zeros(0, dtype=torch.long)
        pairs = torch.flip(torch.arange(len(student_tokens)), (0,)) + 2, student_tokens
    # Every third begins with white space.
    bytes_of = [tuple(b" a" if k % 3 == 0 else b"a" for k in range(n)) for n in (teacher_size, size)]
    shared = replace(shared, teacher_tokens=bytes_of[0], student_tokens=bytes_of[1])
    teacher_tokens = tokens + 4
    batch = token_batch(
        student_head,
        random(tokens, 11).to(dtype).requires_grad_(),
        torch.randint(0, size, (tokens,), generator=generator),
        teacher_head,
        random(teacher_tokens, 17).to(dtype),
        torch.randint(0, teacher_size, (teacher_tokens,), generator=generator),
        *pairs,
    )
    # Two examples, the second of half as many tokens as the first; tokens of both sides are grouped in twos and threes.
    batch = changed(
        batch,
        student_sizes=_two_examples(tokens),
        teacher_sizes=_two_examples(teacher_tokens),
        student_inputs=torch.randint(0, size, (tokens,), generator=generator),
        teacher_inputs=torch.randint(0, teacher_size, (teacher_tokens,), generator=generator),
        student_groups=_groups(_two_examples(tokens).tolist(), 2, _two_examples(teacher_tokens).tolist(), 3),
        teacher_groups=_groups(_two_examples(teacher_tokens).tolist(), 3, _two_examples(tokens).tolist(), 2),
        student_embedding=random(size + 3, 11),
        teacher_embedding=random(teacher_size + 5, 17),
    )
    if method.requires.pairing == "position":
        teacher_pairs, student_pairs = pairs_by_position(batch.teacher.sizes, batch.student.sizes)
        batch = changed(batch, teacher_pairs=teacher_pairs, student_pairs=student_pairs)
    torch.manual_seed(seed)
    projectors = method.prepare(student_head, teacher_head, shared)
    method.on_step_begin(student_head)
    if reads_step_statistics(method):
        batch = changed(batch, student_sampled=torch.arange(tokens) % 3 > 0)
        with torch.no_grad():
            (scores,) = method.precompute_step([batch], lambda sums: sums)
        batch = changed(batch, student_per_token_statistics=scores)
    parameters = [p for p in projectors.parameters() if p.requires_grad] if projectors is not None else []
    leaves = [batch.student.hidden, student_head.weight, student_head.bias, *parameters]
    return batch, parameters, [leaf for leaf in leaves if leaf is not None and leaf.requires_grad]


def _two_examples(tokens: int) -> torch.Tensor:
    return torch.tensor([tokens - tokens // 3, tokens // 3])


def _groups(sizes: list[int], width: int, other_sizes: list[int], other_width: int) -> torch.Tensor:
    """Groups of `width` tokens while both sides have some, then -1; the last token of each example is a group of its own."""
    groups, first = [], 0
    for size, other in zip(sizes, other_sizes, strict=True):
        common = min((size - 1) // width, (other - 1) // other_width)
        groups += [first + k // width if k // width < common else -1 for k in range(size - 1)]
        groups += [first + max(common, 0)] if size else []
        first += max(common, 0) + 1
    return torch.tensor(groups, dtype=torch.long)


def batch_of(values: dict[str, torch.Tensor]) -> tuple[Any, torch.Tensor]:
    """A batch of golden logits: hidden states of heads that change nothing. (batch, the logits that gradients are asked of)"""
    leaf = values["in/student_logits"].clone().requires_grad_()
    kept = values["in/labels"] != -100
    size = leaf.shape[-1]
    head = Head(torch.eye(size), None, 1.0, 0.0, size)
    labels, pairs = values["in/labels"][kept], torch.arange(int(kept.sum()))
    teacher = values["in/teacher_logits"][kept]
    return token_batch(head, leaf[kept], labels, head, teacher, labels, pairs, pairs), leaf


def objective(method: Any, batch: Any) -> torch.Tensor:
    terms = method.terms(batch)
    return method.objective({name: term.total / term.normalizer.clamp_min(1) for name, term in terms.items()})


def check_zero(method: Any, shift: int) -> None:
    """Value and gradient are zero where the teacher is the student, and not where it is shifted by a token."""
    batch, _, leaves = case(method, tokens=9)
    batch.teacher.head = batch.student.head.detach()
    batch.teacher.hidden = batch.student.hidden.detach().roll(shift, 0)
    loss = objective(method, batch)
    gradients = torch.autograd.grad(loss, leaves)
    largest = max([loss.abs().item(), *(gradient.abs().max().item() for gradient in gradients)])
    assert largest > 1e-2 if shift else largest < 1e-6

"""Two examples and an end of sequence whose tokens of two models are grouped by bytes, for methods that compare groups."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers.token_batches import token_batch

STUDENT, TEACHER = 19, 23  # vocabulary sizes
# Groups of the two sides' tokens, example by example; the last is that of the end tokens.
STUDENT_GROUPS = [[-1, 0, 1, 1, 1, 2, -1, 3], [0, 0, 1, 2], [0]]
TEACHER_GROUPS = [[0, 0, 1, 1, 2, 3], [0, 1, 1, 1, -1, 2], [0]]


def _numbered(groups: list[list[int]]) -> torch.Tensor:
    """The groups of each example, numbered on through the batch."""
    numbers, first = [], 0
    for example in groups:
        numbers += [number if number < 0 else number + first for number in example]
        first += max(example) + 1
    return torch.tensor(numbers)


def _tokens(size: int) -> tuple[bytes | None, ...]:
    """Every third begins with white space, of each kind; the last is special."""
    return (*([b" a", b"a", b"b ", b"\na", b"b", b"c", b"\ta", b"d", b""][k % 9] for k in range(size - 1)), None)


def case(
    *, examples: list[int] | tuple[int, int, int] = (0, 1, 2), same: bool = False, seed: int = 0
) -> tuple[Any, SharedVocabulary]:
    """A batch of those examples and the vocabularies' shared tokens; an example is the same in every batch that has it."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    def parts(groups: list[list[int]], hidden: int, size: int) -> tuple[Any, ...]:
        states = [random(len(example), hidden) for example in groups]
        labels = [torch.randint(0, size, (len(example),), generator=generator) for example in groups]
        chosen = [groups[k] for k in examples]
        return (
            torch.cat([states[k] for k in examples]),
            torch.cat([labels[k] for k in examples]),
            torch.tensor([len(example) for example in chosen]),
            _numbered(chosen),
        )

    head = Head(
        random(STUDENT + 3, 5).requires_grad_(), (0.1 * random(STUDENT + 3)).requires_grad_(), 0.9, 0.0, STUDENT
    )
    hidden, labels, sizes, groups = parts(STUDENT_GROUPS, 5, STUDENT)
    teacher_head = Head(random(TEACHER + 2, 7), None, 1.0, 4.0, TEACHER)
    teacher_hidden, teacher_labels, teacher_sizes, teacher_groups = parts(TEACHER_GROUPS, 7, TEACHER)
    teacher_tokens, student_tokens = _tokens(TEACHER), _tokens(STUDENT)
    shared = SharedVocabulary(
        np.arange(3, 15), np.arange(1, 13)[::-1].copy(), np.full(TEACHER, -1), False, teacher_tokens, student_tokens
    )
    if same:
        teacher_head, teacher_hidden, teacher_labels = head.detach(), hidden.clone(), labels
        teacher_sizes, teacher_groups = sizes, groups
        ids = np.arange(STUDENT)
        shared = SharedVocabulary(ids, ids, ids, True, student_tokens, student_tokens)
    batch = token_batch(
        head,
        hidden.requires_grad_(),
        labels,
        teacher_head,
        teacher_hidden,
        teacher_labels,
        student_sizes=sizes,
        teacher_sizes=teacher_sizes,
        student_groups=groups,
        teacher_groups=teacher_groups,
    )
    return batch, shared


def loss(method: Any, batch: Any, totals: Any = None) -> torch.Tensor:
    totals = totals or method.counts(batch)
    return method.objective({name: term.total / totals[name] for name, term in method.terms(batch).items()})


def gradients(value: torch.Tensor, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    leaves = [batch.student.hidden, batch.student.head.weight, batch.student.head.bias]
    return torch.autograd.grad(value, [leaf for leaf in leaves if leaf is not None], retain_graph=True)


def double(head: Head) -> Head:
    bias = None if head.bias is None else head.bias.double()
    return replace(head, weight=head.weight.double(), bias=bias)

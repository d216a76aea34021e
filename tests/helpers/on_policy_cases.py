"""Batches of text that the student wrote, from golden logits or at random, and losses of them, fused and not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dskd.losses.chunked import chunked_loss
from dskd.losses.tokens import SideTokens
from dskd.modeling.lm_head import Head
from helpers.method_cases import objective, with_statistics
from helpers.token_batches import changed, token_batch


def batch_of(values: dict[str, Tensor], *, written: bool = False, temperature: float = 1.0) -> tuple[Any, Tensor]:
    """(a batch of golden logits `in/…`, the logits that gradients are asked of); heads that change nothing.

    `written`: as if an older student had written the text, whose log-probabilities the case has.
    """
    leaf = values["in/student_logits"].clone().requires_grad_()
    kept = values["in/mask"] > 0
    head = Head(torch.eye(leaf.shape[-1]), None, 1.0, 0.0, leaf.shape[-1])
    labels = values["in/tokens"].long()[kept]
    every = torch.arange(len(labels))
    batch = token_batch(
        head,
        leaf[kept],
        labels,
        head,
        values["in/teacher_logits"][kept],
        labels,
        every,
        every,
        student_sampled=torch.ones(len(labels), dtype=torch.bool),
        student_sizes=kept.sum(-1),
        teacher_sizes=kept.sum(-1),
        student_groups=every,
        teacher_groups=every,
    )
    if written:
        batch.student.written_log_probabilities = values["in/rollout_logprobs"][kept]
    reference = (values["in/reference_logits"][kept] / temperature).log_softmax(-1)
    batch.reference = SideTokens(label_log_probabilities=reference.gather(-1, labels.unsqueeze(-1)).squeeze(-1))
    return batch, leaf


def losses_of(method: Any, batch: Any, leaf: Tensor, chunk: int = 4) -> list[tuple[Tensor, Tensor]]:
    """(loss, its gradient to the leaf) unfused and in chunks of tokens."""
    batch = with_statistics(method, batch)
    totals = method.counts(batch)
    fused, _ = chunked_loss(method, batch, totals, (), chunk)
    found = []
    for loss in (objective(method, batch), fused):
        (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        found.append((loss.detach(), gradient))
    return found


def label_log_probabilities(logits: Tensor, values: dict[str, Tensor]) -> Tensor:
    """log softmax(logits) of the golden tokens [rows, tokens]."""
    return logits.log_softmax(-1).gather(-1, values["in/tokens"].long().unsqueeze(-1)).squeeze(-1)


def random_batch(
    method: Any, sizes: tuple[int, ...] = (5, 1, 7), vocabulary: int = 19, seed: int = 0
) -> tuple[Any, ...]:
    """(a batch of one vocabulary, of which all responses but the second are sampled; hidden states and head, the leaves)."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    tokens = sum(sizes)
    own, other = (Head(random(vocabulary + extra, 6), None, 1.0, 0.0, vocabulary) for extra in (2, 4))
    own.weight.requires_grad_()
    every, labels = torch.arange(tokens), torch.randint(0, vocabulary, (tokens,), generator=generator)
    batch = token_batch(
        own,
        random(tokens, 6).requires_grad_(),
        labels,
        other,
        random(tokens, 6),
        labels,
        every,
        every,
        student_sampled=torch.tensor([k != 1 for k in range(len(sizes))]).repeat_interleave(torch.tensor(sizes)),
        student_sizes=torch.tensor(sizes),
        teacher_sizes=torch.tensor(sizes),
        student_groups=every,
        teacher_groups=every,
    )
    if method.requires.reference:
        batch.reference = SideTokens(label_log_probabilities=-3 * random(tokens).abs())
    return changed(batch), [batch.student.hidden, own.weight]


def slow_probabilities(batch: Any, leaves: list[Tensor], temperature: float = 1.0) -> tuple[Any, Any, list[Tensor]]:
    """(q, p, leaves) of a batch, float64, a list with one distribution a token."""
    hidden, weight = (leaf.detach().double().requires_grad_() for leaf in leaves)
    size = batch.student.head.size
    q = [(weight[:size] @ state / temperature).softmax(-1) for state in hidden]
    other = batch.teacher.head.weight.double()[:size]
    p = [(other @ state.double() / temperature).softmax(-1) for state in batch.teacher.hidden]
    return q, p, [hidden, weight]


def assert_same(ours: Tensor, leaves: list[Tensor], slow: Tensor, variables: list[Tensor]) -> None:
    """Value and every gradient of a loss are those of a slow one in float64."""
    torch.testing.assert_close(ours.detach().double(), slow.detach(), rtol=1e-5, atol=1e-6)
    found, expected = torch.autograd.grad(ours, leaves), torch.autograd.grad(slow, variables)
    for own, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(own.double(), reference, rtol=1e-4, atol=1e-6)


def clipped(log_q: Tensor, log_old: float, advantage: float, epsilon: float = 0.2, dual: float = 3.0) -> Tensor:
    """The clipped loss of one action, by its cases."""
    ratio = (log_q - log_old).exp()
    value = ratio.item()
    if advantage >= 0:
        return -advantage * ratio if value <= 1 + epsilon else torch.tensor(-advantage * (1 + epsilon)).double()
    if value < 1 - epsilon:
        return torch.tensor(-advantage * (1 - epsilon)).double()
    return -advantage * ratio if value <= dual else torch.tensor(-dual * advantage).double()


def responses_of(batch: Any) -> list[range]:
    """The tokens of each response."""
    found, first = [], 0
    for size in batch.student.sizes.tolist():
        found.append(range(first, first + size))
        first += size
    return found


def sampled_responses(batch: Any) -> list[range]:
    """Of those that the student wrote."""
    return [tokens for tokens in responses_of(batch) if batch.student.sampled[tokens[0]]]

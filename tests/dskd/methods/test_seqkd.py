"""Sequence-level distillation: cross entropy on whatever responses it is given."""

from __future__ import annotations

import pytest
import torch

from dskd import methods
from dskd.errors import InputError
from dskd.losses.tokens import TokenBatch
from dskd.modeling.lm_head import Head
from helpers.token_batches import token_batch


def batch() -> TokenBatch:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 4, generator=generator, requires_grad=True)
    weight = torch.randn(7, 4, generator=generator, requires_grad=True)
    return token_batch(Head(weight, None, 1.0, 0.0, 7), hidden, torch.tensor([0, 6, 3, 3, 1]))


@pytest.mark.reference("seqkd")
def test_loss_and_gradient_are_those_of_a_loop_over_labels() -> None:
    given = batch()
    method = methods.get("seqkd")()
    means = {name: term.total / term.normalizer for name, term in method.terms(given).items()}
    loss = method.objective(means)
    scores = (given.student.hidden @ given.student.head.weight.T).double()
    slow = torch.zeros((), dtype=torch.float64)
    for row, label in zip(scores, given.student.labels.tolist(), strict=True):
        slow = slow + torch.log(torch.exp(row).sum()) - row[label]
    slow = slow / 5
    torch.testing.assert_close(loss, slow.float())
    for one, other in zip(
        torch.autograd.grad(loss, [given.student.hidden, given.student.head.weight]),
        torch.autograd.grad(slow, [given.student.hidden, given.student.head.weight]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_how_the_teacher_answers_are_options_of_the_method() -> None:
    assert methods.get("seqkd")().options.model_dump() == {"max_new_tokens": 256, "answer_temperature": 0.0}
    with pytest.raises(InputError, match=r"methods\.seqkd\.max_new_tokens"):
        methods.get("seqkd")({"max_new_tokens": 0})
    assert methods.get("seqkd").requires.response_source == "teacher"

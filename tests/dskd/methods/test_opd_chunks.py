"""On-policy distillation over byte groups of two vocabularies, against a slow loop over groups in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd import methods
from helpers import method_cases
from helpers.method_cases import objective, with_statistics
from helpers.on_policy_cases import assert_same, clipped
from helpers.token_batches import changed


def _slow_loss(batch: Any, leaves: list[torch.Tensor], gamma: float, *, everything: bool) -> Any:
    """(the loss, its leaves): responses, their groups, and the tokens of each group, one at a time."""
    hidden, weight = (leaf.detach().double().requires_grad_() for leaf in leaves)
    size, other = batch.student.head.size, batch.teacher.head
    log_q = [
        (weight[:size] @ state).log_softmax(-1)[label]
        for state, label in zip(hidden, batch.student.labels, strict=True)
    ]
    log_p = [
        (other.weight.double()[: other.size] @ state.double()).log_softmax(-1)[label].item()
        for state, label in zip(batch.teacher.hidden, batch.teacher.labels, strict=True)
    ]
    student, teacher = batch.student.groups.tolist(), batch.teacher.groups.tolist()
    total, count, first = torch.zeros((), dtype=torch.float64), 0, 0
    for n in batch.student.sizes.tolist():
        tokens = range(first, first + n)
        first += n
        numbers = sorted({student[t] for t in tokens if student[t] >= 0})
        advantage = {}
        for c in numbers:
            own = sum(log_q[t].item() for t in tokens if student[t] == c)
            advantage[c] = sum(log_p[j] for j, group in enumerate(teacher) if group == c) - own
        whole = sum(abs(advantage[c]) for c in (numbers if everything else numbers[:-1]))
        for t in tokens:
            if student[t] < 0 or not batch.student.sampled[t]:
                continue
            before = sum(abs(advantage[c]) for c in numbers if c < student[t])
            scale = 1 + gamma * (1 - before / whole) if gamma else 1.0
            total = total + clipped(log_q[t], log_q[t].item(), scale * advantage[student[t]])
            count += 1
    return total / count, [hidden, weight]


@pytest.mark.parametrize("options", [{}, {"gamma": 0.5}, {"gamma": 0.8, "normaliser": "all"}], ids=str)
def test_value_and_gradient_are_those_of_a_slow_loop_over_groups(options: dict[str, Any]) -> None:
    method = methods.get("opd-chunks")(options)
    batch, _, leaves = method_cases.case(method, tokens=23)
    assert -1 in batch.student.groups.tolist()  # what the teacher has no tokens for has no loss
    slow, variables = _slow_loss(batch, leaves, options.get("gamma", 0.0), everything="normaliser" in options)
    assert method.counts(batch) == method.counts(changed(batch, student_per_token_statistics=None))
    assert_same(objective(method, batch), leaves, slow, variables)


def test_a_group_counts_as_one_action_whatever_its_tokens_are() -> None:
    """With the tokens of a group split among them otherwise, its advantage is the same: sums alone enter."""
    method = methods.get("opd-chunks")()
    batch, _, _ = method_cases.case(method, tokens=12)
    advantages = batch.student.per_token_statistics[:, 0]
    for group in set(batch.student.groups.tolist()) - {-1}:
        assert len(set(advantages[batch.student.groups == group].tolist())) == 1
    swapped = batch.student.hidden.detach().clone()
    swapped[[0, 1]] = swapped[[1, 0]]  # the first group's two tokens
    labels = batch.student.labels.clone()
    labels[[0, 1]] = labels[[1, 0]]
    other = with_statistics(method, changed(batch, student_hidden=swapped, student_labels=labels))
    torch.testing.assert_close(other.student.per_token_statistics[:, 0], advantages)


def test_without_a_common_group_there_is_no_loss() -> None:
    method = methods.get("opd-chunks")({"gamma": 0.5})
    batch, _, leaves = method_cases.case(method, tokens=9)
    none = torch.full_like(batch.student.groups, -1)
    batch = with_statistics(method, changed(batch, student_groups=none))
    loss = objective(method, batch)
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, leaves))

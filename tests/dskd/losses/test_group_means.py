"""Means over the tokens of groups against loops over the tokens, and their gradients against automatic differentiation."""

from __future__ import annotations

import pytest
import torch

from dskd.losses.group_means import mean_log_probabilities, mean_log_probabilities_of_largest, mean_probabilities
from dskd.losses.token_groups import ByteGroups

NUMBERS = [0, 0, -1, 1, 2, 2, 2, 7]  # the last is beyond the limit
LIMIT, VOCABULARY = 5, 11


def _logits(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (3 * torch.randn(len(NUMBERS), VOCABULARY, generator=generator)).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("logarithms", [False, True])
def test_means_and_gradients(dtype: torch.dtype, temperature: float, logarithms: bool) -> None:
    logits, groups = _logits(dtype), ByteGroups(torch.tensor(NUMBERS), LIMIT)
    found = (mean_log_probabilities if logarithms else mean_probabilities)(logits, groups, temperature)
    assert found.dtype == torch.float32
    rows = []
    for group in range(LIMIT):
        own = [logits[i].double() / temperature for i, number in enumerate(NUMBERS) if number == group]
        values = [torch.log_softmax(row, -1) if logarithms else torch.softmax(row, -1) for row in own]
        rows.append(sum(values) / len(values) if values else torch.zeros(VOCABULARY, dtype=torch.double))
    slow = torch.stack(rows)
    torch.testing.assert_close(found.double(), slow, rtol=1e-5, atol=1e-6)
    weights = torch.randn(slow.shape, generator=torch.Generator().manual_seed(1))
    (ours,) = torch.autograd.grad((found * weights).sum(), logits)
    (expected,) = torch.autograd.grad((slow * weights).sum(), logits)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


def test_no_group_has_no_gradient() -> None:
    logits = _logits()
    groups = ByteGroups(torch.full((len(NUMBERS),), -1), 0)
    (gradient,) = torch.autograd.grad(mean_probabilities(logits, groups, 1.0).sum(), logits)
    assert gradient.abs().max() == 0


def test_each_group_has_the_tokens_with_its_largest_mean_logits() -> None:
    logits, groups = _logits(), ByteGroups(torch.tensor(NUMBERS), LIMIT)
    found = mean_log_probabilities_of_largest(logits, groups, 2.0, 4)
    for group in range(3):
        own = torch.stack([logits[i] / 2.0 for i, number in enumerate(NUMBERS) if number == group]).detach()
        kept = own.mean(0).topk(4).indices.sort().values
        assert (found[group] > -torch.inf).nonzero().squeeze(-1).tolist() == kept.tolist()
        torch.testing.assert_close(found[group, kept], own[:, kept].log_softmax(-1).mean(0))
    everything = mean_log_probabilities_of_largest(logits, groups, 2.0, VOCABULARY)
    torch.testing.assert_close(everything[:3], mean_log_probabilities(logits, groups, 2.0)[:3].detach())

"""Cross entropy with its gradient in the forward, against torch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from dskd.losses.cross_entropy import cross_entropy_and_hits, cross_entropy_sum


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [0, 1, 9])
def test_value_and_gradient_are_those_of_torch(dtype: torch.dtype, tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    logits = (3 * torch.randn(tokens, 17, generator=generator)).to(dtype).requires_grad_()
    labels = torch.randint(-1, 17, (tokens,), generator=generator)
    ours = cross_entropy_sum(logits, labels)
    theirs = functional.cross_entropy(logits.float(), labels, ignore_index=-1, reduction="sum")
    torch.testing.assert_close(ours, theirs)
    (found,) = torch.autograd.grad(2.5 * ours, logits)
    (expected,) = torch.autograd.grad(2.5 * theirs, logits)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected)


def test_the_logits_stay_as_they_were() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    before = logits.detach().clone()
    cross_entropy_sum(logits, torch.tensor([0, -1, 2, 4])).backward()
    assert torch.equal(logits.detach(), before)


def test_hits_are_the_labels_that_are_predicted() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [0.0, 1.0, 5.0]], requires_grad=True)
    sum_, hits = cross_entropy_and_hits(logits, torch.tensor([1, 2, -1]))
    assert hits.item() == 1  # the first; the second is another token, the third has no label
    assert not hits.requires_grad
    torch.testing.assert_close(sum_, cross_entropy_sum(logits, torch.tensor([1, 2, -1])))

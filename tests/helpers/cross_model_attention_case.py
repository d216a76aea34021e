"""A batch of three examples for dskd-v1-cma and what derives from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dskd.losses.tokens import TokenBatch
from dskd.methods import get
from dskd.modeling.lm_head import Head
from helpers.token_batches import changed, token_batch

SIZES = {"student": [4, 1, 6], "teacher": [5, 3, 2]}
VOCABULARY, HIDDEN = {"student": 23, "teacher": 29}, {"student": 6, "teacher": 9}


def case(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, Any]:
    """(method, batch of three examples); heads with a bias, a factor or a soft-cap, and padded rows."""
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    given = {}
    for side, sizes in SIZES.items():
        tokens, size, hidden = sum(sizes), VOCABULARY[side], HIDDEN[side]
        student = side == "student"
        bias = random(size + 2)
        bias[7] += 6.0
        head = Head(random(size + 2, hidden), bias, 0.8 if student else 1.0, 0.0 if student else 5.0, size)
        head.weight.requires_grad_(student)
        given[f"{side}_head"] = head
        given[f"{side}_hidden"] = random(tokens, hidden).requires_grad_(student)
        given[f"{side}_labels"] = torch.randint(0, size, (tokens,), generator=generator)
        given[f"{side}_inputs"] = torch.randint(0, size, (tokens,), generator=generator)
        given[f"{side}_embedding"] = random(size + 2, hidden)
        given[f"{side}_sizes"] = torch.tensor(sizes)
    given["student_labels"][::3] = given[
        "student_head"
    ].bias.argmax()  # which the projected teacher predicts most often
    batch = token_batch(**given)
    name = "dskd.upstream.methods:DualSpaceV1CrossModelAttention" if "upstream_parity" in options else "dskd-v1-cma"
    method = get(name)({"temperature": 1.7, "kd_rate": 0.3} | options)
    torch.manual_seed(3)
    method.prepare(batch.student.head, batch.teacher.head, None).to(dtype)
    return method, batch


def example(batch: Any, number: int) -> Any:
    """One example of a batch by itself."""
    changes = {}
    for side in SIZES:
        first, last = sum(SIZES[side][:number]), sum(SIZES[side][: number + 1])
        changes |= {f"{side}_{name}": getattr(getattr(batch, side), name)[first:last] for name in ("labels", "inputs")}
        changes[f"{side}_hidden"] = getattr(batch, side).hidden[first:last]
        changes[f"{side}_sizes"] = torch.tensor([SIZES[side][number]])
    return changed(batch, **changes)


def assert_terms_stay_on_the_device(method: Any, batch: TokenBatch) -> None:
    """The terms of a batch on the GPU are computed there, and nothing is read from it meanwhile."""
    moved = {}
    for side in SIZES:
        head = getattr(batch, side).head
        moved[f"{side}_head"] = replace(head, weight=head.weight.detach().cuda(), bias=head.bias.cuda())
        for name in ("hidden", "labels", "inputs", "embedding"):
            moved[f"{side}_{name}"] = getattr(getattr(batch, side), name).detach().cuda()
    method.projectors.cuda()
    on_device = changed(batch, **moved)
    method.terms(on_device)  # what is made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        terms = method.terms(on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(term.total.is_cuda for term in terms.values())

"""Rows sorted by numpy are, to the bit, the rows that torch's stable sort gives; ranks compare as in a loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dskd.losses import sorting
from dskd.losses.by_rank import sorted_l1, sorted_l1_of_logits
from dskd.losses.sorting import argmax_of_rows, sort, sorted_values

WIDE = 1500  # beyond _LEAST_WIDTH, so that numpy has it


def _rows(kind: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(7, WIDE, generator=generator) * 4
    made = {
        "of both signs": random,
        "probabilities": random.softmax(-1),
        "many ties": random.round(),
        "one number": torch.full((7, WIDE), -0.25),
        "zeros of both signs": torch.where(random > 3, 1.0, random.sign() * 0.0),
        "infinities": random.masked_fill(random > 4, math.inf).masked_fill(random < -4, -math.inf),
        "denormal": random * 1e-40,
        "columns of a wider matrix": torch.cat([random, random], -1)[:, 3 : 3 + WIDE],
        "every second row": torch.cat([random, random])[::2],
    }
    return made[kind]


kinds = pytest.mark.parametrize(
    "kind",
    [
        "of both signs",
        "probabilities",
        "many ties",
        "one number",
        "zeros of both signs",
        "infinities",
        "denormal",
        "columns of a wider matrix",
        "every second row",
    ],
)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("descending", [False, True])
@kinds
def test_numbers_and_columns_are_those_of_a_stable_sort(kind: str, descending: bool, threads: int) -> None:
    values, before = _rows(kind), torch.get_num_threads()
    given = values.clone()
    assert sorting._for_numpy(values)
    torch.set_num_threads(threads)
    try:
        ranked, order = sort(values, descending=descending)
        without_columns = sorted_values(values, descending=descending)
    finally:
        torch.set_num_threads(before)
    expected = torch.sort(given, dim=-1, descending=descending, stable=True)
    assert torch.equal(ranked, expected.values)
    assert torch.equal(order, expected.indices)
    assert torch.equal(without_columns, expected.values)
    assert torch.equal(values, given)


@kinds
def test_the_largest_number_is_the_first_of_several(kind: str) -> None:
    values = _rows(kind)
    expected = [min(k for k, number in enumerate(row) if number == max(row)) for row in values.tolist()]
    assert argmax_of_rows(values).tolist() == expected


@pytest.mark.parametrize("kind", [{"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"columns": 60}, {"rows": 0}])
def test_what_numpy_does_not_sort_torch_sorts_alike(kind: dict[str, Any]) -> None:
    values = _rows("many ties")[: kind.get("rows"), : kind.get("columns")].to(kind.get("dtype"))
    ranked, order = sort(values, descending=True)
    expected = torch.sort(values, dim=-1, descending=True, stable=True)
    assert torch.equal(ranked, expected.values)
    assert torch.equal(order, expected.indices)
    assert torch.equal(sorted_values(values), torch.sort(values, dim=-1).values)
    assert ranked.dtype == values.dtype
    assert torch.equal(argmax_of_rows(values), values.argmax(-1))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("kind", ["of both signs", "many ties"])
def test_the_gradient_goes_back_to_where_each_number_came_from(kind: str, descending: bool) -> None:
    weights = torch.randn(7, WIDE, generator=torch.Generator().manual_seed(1))
    found, expected = (_rows(kind).requires_grad_() for _ in range(2))
    (sort(found, descending=descending)[0] * weights).sum().backward()
    (torch.sort(expected, dim=-1, descending=descending, stable=True).values * weights).sum().backward()
    assert torch.equal(found.grad, expected.grad)


@pytest.mark.parametrize(("teacher", "student"), [(WIDE, WIDE), (WIDE + 40, WIDE), (WIDE, WIDE + 40)])
@pytest.mark.parametrize("ties", [False, True])
def test_a_comparison_by_rank_is_that_of_a_loop(teacher: int, student: int, ties: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = [torch.randn(3, size, generator=generator) * 3 for size in (teacher, student)]
    if ties:
        logits = [side.round() for side in logits]
    own = logits[1].clone().requires_grad_()
    values = sorted_l1_of_logits(logits[0], own, 1.3)
    (gradient,) = torch.autograd.grad((values * torch.tensor([1.0, -2.0, 0.5])).sum(), own)
    merged = (logits[1] / 1.3).log_softmax(-1).requires_grad_()
    of_logarithms = sorted_l1((logits[0] / 1.3).log_softmax(-1), merged)
    (gradient_of_logarithms,) = torch.autograd.grad(of_logarithms.sum(), merged)

    wide = [side.double() for side in logits]
    wide[1].requires_grad_()
    p, q = ((side / 1.3).softmax(-1) for side in wide)
    expected = []
    for row in range(3):
        ranked = [list(torch.sort(side[row], descending=True, stable=True).values) for side in (p, q)]
        for side in ranked:
            side += [torch.zeros((), dtype=torch.float64)] * (max(teacher, student) - len(side))
        expected.append(torch.stack([(a - b).abs() for a, b in zip(*ranked, strict=True)]).sum())
    slow = torch.stack(expected)
    torch.testing.assert_close(values, slow.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of_logarithms, values)
    (by_hand,) = torch.autograd.grad((slow * torch.tensor([1.0, -2.0, 0.5])).sum(), wide[1], retain_graph=True)
    torch.testing.assert_close(gradient, by_hand.float(), rtol=1e-4, atol=1e-6)
    (of_q,) = torch.autograd.grad(slow.sum(), q)
    torch.testing.assert_close(gradient_of_logarithms, (of_q * q).float(), rtol=1e-4, atol=1e-6)

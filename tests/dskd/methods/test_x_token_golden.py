"""X-Token against values and gradients of the released code, on its own W, chunks and set K."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from helpers import golden
from helpers.x_token_cases import TEACHER_TOKENS, projection_of, released


@pytest.mark.parametrize("case", golden.cases("xtoken_loss"), ids=lambda case: case["name"])
def test_values_and_gradients_of_the_released_code(case: dict[str, Any]) -> None:
    given, terms, config = golden.tensors(case), case["terms"], case["config"]
    stored = golden.tensors({"name": case["projection"], "kind": "xtoken_projection"})
    projection = projection_of(stored["indices"], stored["weights"])
    distance = torch.zeros(())
    entropy, leaves = torch.zeros(()), []
    for number, teacher in enumerate(case["teachers"]):
        if terms.get("selected_teacher", number) != number:
            continue
        method, batch, own = released(case, given, teacher, projection)
        value, groups = method.distance(batch)
        assert value.item() == pytest.approx(terms[f"kl_loss_t{number}"], rel=1e-5)
        counted = terms.get(f"num_valid_pairs_t{number}", terms.get(f"num_valid_chunks_t{number}"))
        assert groups == counted or counted is None
        weight = terms.get(f"weight_t{number}", 1.0)
        if config["normalize_teacher_by_vocab"]:
            sizes = {"cross": TEACHER_TOKENS, "same": len(own[1])}
            weight *= math.log(sizes[teacher]) / math.log(min(sizes.values()))
        distance = distance + weight * value
        entropy = method.entropy(batch)
        leaves.append((own, weight * value, entropy))
    assert distance.item() == pytest.approx(terms["kl_loss"], rel=1e-5)
    assert entropy.item() == pytest.approx(terms["ce_loss"], rel=1e-5)
    scales = (abs(entropy.item() / distance.item()), 1.0) if config["dynamic_loss_scaling"] else (1.0, 0.1)
    loss = scales[0] * distance + scales[1] * entropy
    assert loss.item() == pytest.approx(terms["loss"], rel=1e-5)
    found = [torch.zeros(()), torch.zeros(())]
    for number, (own, share, ce) in enumerate(leaves):
        whole = scales[0] * share + (scales[1] * ce if number == 0 else 0.0)
        found = [a + b for a, b in zip(found, torch.autograd.grad(whole, own), strict=True)]
    for ours, name in zip(found, ("student_hidden", "student_head"), strict=True):
        theirs = given[f"grad/{name}"]
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm(), name

"""DistiLLM against the published losses and against slow ones in probability space."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd import methods
from helpers import golden, method_cases
from helpers.method_cases import batch_of, check_zero, objective

PUBLISHED = ("skewed_forward_kl", "skewed_reverse_kl", "forward_kl", "reverse_kl")


@pytest.mark.parametrize(
    "case",
    [case for case in golden.cases("distillm") if case["inputs"] == "distillm" and case["loss"] in PUBLISHED],
    ids=lambda case: case["name"],
)
def test_loss_and_gradient_are_the_published_ones(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    method = methods.get("distillm")({"divergence": case["loss"], "skew": case["parameters"].get("lam", 0.1)})
    batch, leaf = batch_of(values)
    loss = objective(method, batch)
    expected = values["value"]
    if "forward" in case["loss"]:  # published without the teacher's entropy, which has no gradient
        log_p = batch.teacher.hidden.log_softmax(-1)
        expected = expected + (log_p.exp() * log_p).sum(-1).mean()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    torch.testing.assert_close(leaf.grad, values["grad/student_logits"], rtol=1e-5, atol=1e-6)


def test_by_default_it_is_the_skewed_forward_divergence_alone_at_temperature_1() -> None:
    options = methods.get("distillm")().options
    assert (options.kd_rate, options.temperature, options.skew) == (1.0, 1.0, 0.1)
    assert options.divergence == "skewed_forward_kl"


@pytest.mark.reference("distillm")
@pytest.mark.parametrize("divergence", ["skewed_forward_kl", "skewed_reverse_kl"])
@pytest.mark.parametrize("skew", [0.1, 0.5])
def test_value_and_gradient_are_those_of_a_slow_loop_over_probabilities(divergence: str, skew: float) -> None:
    method = methods.get("distillm")({"divergence": divergence, "skew": skew})
    batch, _, leaves = method_cases.case(method, tokens=11)
    loss = objective(method, batch)
    found = torch.autograd.grad(loss, leaves)

    hidden, weight = (leaf.detach().double().requires_grad_() for leaf in leaves)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(11):
        q = (weight[:53] @ hidden[t]).softmax(-1)
        p = (batch.teacher.head.weight.double()[:53] @ batch.teacher.hidden[t].double()).softmax(-1)
        first, second = (p, q) if divergence == "skewed_forward_kl" else (q, p)
        mixture = skew * first + (1 - skew) * second
        total = total + sum(first[k] * (first[k] / mixture[k]).log() for k in range(53))
    torch.testing.assert_close(loss.detach().double(), total.detach() / 11, rtol=1e-5, atol=1e-6)
    for ours, slow in zip(found, torch.autograd.grad(total / 11, [hidden, weight]), strict=True):
        torch.testing.assert_close(ours.double(), slow, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("divergence", ["skewed_forward_kl", "skewed_reverse_kl"])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_teacher_like_the_student_gives_no_gradient_and_one_that_is_a_token_late_does(
    divergence: str, shift: int
) -> None:
    check_zero(methods.get("distillm")({"divergence": divergence}), shift)

"""GKD against the published loss, against a slow one in probability space, and as a run on the student's own text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dskd import methods
from dskd.training.run import TrainingOptions, train
from helpers import golden, method_cases
from helpers.method_cases import batch_of, check_zero, objective


@pytest.mark.parametrize(
    "case",
    [case for case in golden.cases("gkd_jsd") if case["reduction"] == "batchmean"],
    ids=lambda case: case["name"],
)
def test_loss_and_gradient_are_the_published_ones(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    if case.get("all_ignored"):
        values = {**values, "in/labels": torch.full_like(values["in/labels"], -100)}
    method = methods.get("gkd")({"js_beta": case["beta"], "temperature": case["temperature"]})
    batch, leaf = batch_of(values)
    loss = objective(method, batch)
    torch.testing.assert_close(loss.detach(), values["value"], rtol=1e-5, atol=1e-6)
    loss.backward()
    torch.testing.assert_close(leaf.grad, values["grad/student_logits"], rtol=1e-5, atol=1e-6)


def test_by_default_it_is_the_mean_of_the_divergence_with_one_half_and_no_cross_entropy() -> None:
    options = methods.get("gkd")().options
    assert (options.kd_rate, options.temperature, options.js_beta) == (1.0, 1.0, 0.5)
    assert options.divergence == "js_divergence"


@pytest.mark.reference("gkd")
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
def test_value_and_gradient_are_those_of_a_slow_loop_over_probabilities(beta: float) -> None:
    method = methods.get("gkd")({"js_beta": beta, "temperature": 1.7, "kd_rate": 0.6})
    batch, _, leaves = method_cases.case(method, tokens=11)
    loss = objective(method, batch)
    found = torch.autograd.grad(loss, leaves)

    hidden, weight = (leaf.detach().double().requires_grad_() for leaf in leaves)
    total = torch.zeros((), dtype=torch.float64)
    for t in range(11):
        z = weight @ hidden[t]
        total = total - 0.4 * z.log_softmax(-1)[batch.student.labels[t]]
        q = (z[:53] / 1.7).softmax(-1)
        p = (batch.teacher.head.weight.double()[:53] @ batch.teacher.hidden[t].double() / 1.7).softmax(-1)
        m = beta * p + (1 - beta) * q
        total = total + 0.6 * (beta * (p * (p / m).log()).sum() + (1 - beta) * (q * (q / m).log()).sum())
    torch.testing.assert_close(loss.detach().double(), total.detach() / 11, rtol=1e-5, atol=1e-6)
    for ours, slow in zip(found, torch.autograd.grad(total / 11, [hidden, weight]), strict=True):
        torch.testing.assert_close(ours.double(), slow, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shift", [0, 1])
def test_a_teacher_like_the_student_gives_no_gradient_and_one_that_is_a_token_late_does(
    beta: float, shift: int
) -> None:
    check_zero(methods.get("gkd")({"js_beta": beta}), shift)


def test_sampled_and_given_text_have_one_divergence_and_parts_of_them_add_up() -> None:
    method = methods.get("gkd")({"kd_rate": 0.5})
    batch, _, _ = method_cases.case(method, tokens=12)
    plain = method.terms(batch)
    batch.student.sampled = torch.arange(12) % 3 == 0
    whole = method.terms(batch)
    assert torch.equal(whole["distillation"].total, plain["distillation"].total)
    assert whole["cross_entropy"].total < plain["cross_entropy"].total
    parts = [method.terms(batch.part(first, first + 5)) for first in (0, 5, 10)]
    for name, term in whole.items():
        torch.testing.assert_close(sum(part[name].total for part in parts), term.total)
        assert sum(part[name].normalizer for part in parts) == term.normalizer == method.counts(batch)[name]


def test_on_its_own_text_the_student_comes_closer_to_the_teacher(world: Path, tmp_path: Path) -> None:
    def distance(rate: float) -> float:
        options = {"steps": 25, "batch_size": 10, "logging_steps": 5, "rollouts": {"share": 1.0, "max_new_tokens": 16}}
        report = train(
            data=world / "same-data",
            student=world / "same",
            teacher=world / "teacher",
            method="gkd",
            options=TrainingOptions(learning_rate=rate, **options),
            output=tmp_path / str(rate),
        )
        assert report.rollouts.samples > 100
        return report.losses["distillation"]

    assert distance(1e-2) < 0.8 * distance(1e-12)

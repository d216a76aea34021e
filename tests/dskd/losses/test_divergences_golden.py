"""The divergences against three published collections of them, whose names and weights are others (shared/golden/rivals)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd.losses.divergences import DIVERGENCES
from helpers import golden


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def _logits(values: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return values["in/teacher_logits"], values["in/student_logits"].clone().requires_grad_()


@pytest.mark.parametrize("case", golden.cases("gkd_jsd"), ids=lambda case: case["name"])
def test_the_jensen_shannon_divergence_is_that_of_gkd(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    teacher, student = _logits(values)
    found = DIVERGENCES["js_divergence"](
        teacher.flatten(0, 1), student.flatten(0, 1), case["temperature"], beta=case["beta"]
    ).view(teacher.shape[:2])
    labelled = torch.zeros_like(values["in/labels"]) if case.get("all_ignored") else values["in/labels"] != -100
    loss = (found * labelled).sum() / case.get("num_items_in_batch", labelled.sum().clamp_min(1))
    loss.backward()
    _close(loss.detach(), values["value"])
    _close(student.grad, values["grad/student_logits"])
    if "per_position" in values:
        _close(found.detach(), values["per_position"])


# Ours, its parameter, theirs, and its value from theirs: KDFlow's β weighs the student, its α the tail.
KDFLOW = {
    "kl": ("forward_kl", None, None),
    "rkl": ("reverse_kl", None, None),
    "tvd": ("total_variation", None, None),
    "jsd": ("js_divergence", "beta", lambda theirs: 1 - theirs["jsd_beta"]),
    "skl": ("skewed_forward_kl", "skew", lambda theirs: theirs["skew_lambda"]),
    "srkl": ("skewed_reverse_kl", "skew", lambda theirs: theirs["skew_lambda"]),
    "akl": ("adaptive_kl", "head_share", lambda theirs: 1 - theirs["adaptive_kl_alpha"]),
}
NOT_OURS = {"top1_ce"}  # its minimum is not where the distributions are equal


@pytest.mark.parametrize(
    "case", [case for case in golden.cases("kdflow") if case["loss"] not in NOT_OURS], ids=lambda case: case["name"]
)
def test_every_divergence_is_that_of_kdflow(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    teacher, student = _logits(values)
    name, knob, value_of = KDFLOW[case["loss"]]
    knobs = {} if knob is None else {knob: value_of(case["parameters"])}
    found = DIVERGENCES[name](teacher, student, case["temperature"], **knobs)
    found.sum().backward()
    _close(found.detach(), values["value"])
    _close(student.grad, values["grad/student_logits"])


# For DistiLLM's λ: weights, names and parameters of ours, and the weight of the teacher's entropy: its forward KL divergences
# are cross entropies, larger by that. λ weighs the student in js_distance, and the KL divergences in symmetric_kl.
DISTILLM = {
    "forward_kl": lambda lam: ([(1, "forward_kl", {})], 1),
    "reverse_kl": lambda lam: ([(1, "reverse_kl", {})], 0),
    "tv_distance": lambda lam: ([(1, "total_variation", {})], 0),
    "symmetric_kl": lambda lam: ([(1 - lam, "forward_kl", {}), (lam, "reverse_kl", {})], 1 - lam),
    "js_distance": lambda lam: ([(1, "js_divergence", {"beta": 1 - lam})], 0),
    "skewed_forward_kl": lambda lam: ([(1, "skewed_forward_kl", {"skew": lam})], 1),
    "skewed_reverse_kl": lambda lam: ([(1, "skewed_reverse_kl", {"skew": lam})], 0),
}


@pytest.mark.parametrize("case", golden.cases("distillm"), ids=lambda case: case["name"])
def test_every_divergence_is_that_of_distillm(case: dict[str, Any]) -> None:
    values = golden.tensors(case)
    teacher, student = _logits(values)
    lam = case["parameters"].get("lam", 0.9 if case["loss"] == "js_distance" else 0.1)
    parts, of_entropy = DISTILLM[case["loss"]](lam)
    p = teacher.softmax(-1).flatten(0, 1)
    found = -of_entropy * torch.xlogy(p, p).sum(-1)
    for weight, name, knobs in parts:
        found = found + weight * DIVERGENCES[name](teacher.flatten(0, 1), student.flatten(0, 1), 1.0, **knobs)
    labelled = (values["in/labels"] != -100).flatten()
    loss = (found * labelled).sum() / labelled.sum()
    loss.backward()
    _close(loss.detach(), values["value"])
    assert torch.isfinite(student.grad).all()  # with masked tokens, some of theirs are not
    if case["grad_finite"]:
        _close(student.grad, values["grad/student_logits"])

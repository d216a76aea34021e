from __future__ import annotations

import math

import golden
import pytest
import torch

from dskd.divergences import DIVERGENCES


@pytest.mark.parametrize("case", golden.cases("divergence"), ids=lambda case: case["name"])
def test_value_and_gradient_equal_the_published_code(case):
    values = golden.tensors(case)
    student = values["student_logits"].clone().requires_grad_()
    ours = DIVERGENCES[case["divergence"]](values["teacher_logits"], student, case["temperature"])
    ours.sum().backward()
    torch.testing.assert_close(ours, values["value"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(student.grad, values["grad"], rtol=1e-5, atol=1e-6)


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def _mix(p: list[float], q: list[float], share: float) -> list[float]:
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


def _adaptive(p: list[float], q: list[float]) -> float:
    cumulative, head, tail = 0.0, 0.0, 0.0
    for a, b in sorted(zip(p, q, strict=True)):
        cumulative += a
        if cumulative <= 0.5:
            tail += abs(a - b)
        else:
            head += abs(a - b)
    return head / (head + tail) * _kl(p, q) + tail / (head + tail) * _kl(q, p)


# The same objectives in probability space, one token and one word at a time.
REFERENCES = {
    "forward_kl": _kl,
    "reverse_kl": lambda p, q: _kl(q, p),
    "js_divergence": lambda p, q: 0.5 * _kl(p, _mix(p, q, 0.5)) + 0.5 * _kl(q, _mix(p, q, 0.5)),
    "skewed_forward_kl": lambda p, q: _kl(p, _mix(p, q, 0.1)),
    "skewed_reverse_kl": lambda p, q: _kl(q, _mix(q, p, 0.1)),
    "adaptive_kl": _adaptive,
}


def _softmax(logits: list[float], temperature: float) -> list[float]:
    weights = [math.exp(value / temperature) for value in logits]
    return [weight / sum(weights) for weight in weights]


def test_every_divergence_has_a_reference():
    assert set(REFERENCES) == set(DIVERGENCES)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_equals_a_reference_in_probability_space(name, temperature):
    generator = torch.Generator().manual_seed(3)
    teacher, student = (torch.randn(5, 17, generator=generator) * 2 for _ in range(2))
    expected = [
        REFERENCES[name](_softmax(t, temperature), _softmax(s, temperature))
        for t, s in zip(teacher.tolist(), student.tolist(), strict=True)
    ]
    torch.testing.assert_close(
        DIVERGENCES[name](teacher, student, temperature), torch.tensor(expected), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "name", [name for name in DIVERGENCES if name != "adaptive_kl"]
)  # its weights take no gradient
def test_gradient_equals_finite_differences(name):
    generator = torch.Generator().manual_seed(4)
    teacher, student = (torch.randn(2, 7, generator=generator) for _ in range(2))
    student.requires_grad_()
    DIVERGENCES[name](teacher, student, 1.5).sum().backward()
    step = 1e-2
    for row in range(2):
        for column in range(7):
            moved = []
            for sign in (1, -1):
                shifted = student.detach().clone()
                shifted[row, column] += sign * step
                moved.append(DIVERGENCES[name](teacher, shifted, 1.5).sum().item())
            assert student.grad[row, column].item() == pytest.approx((moved[0] - moved[1]) / (2 * step), abs=2e-4)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_equal_distributions_are_at_zero_and_masked_logits_give_no_nan(name):
    logits = torch.tensor([[1.0, -2.0, 0.5, -math.inf]])
    student = logits.clone().requires_grad_()
    value = DIVERGENCES[name](logits, student)
    value.sum().backward()
    assert value.item() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 1e-6


def test_half_precision_logits_are_compared_in_float32():
    teacher, student = torch.randn(3, 50, dtype=torch.bfloat16), torch.randn(3, 50, dtype=torch.bfloat16)
    for divergence in DIVERGENCES.values():
        assert divergence(teacher, student).dtype == torch.float32

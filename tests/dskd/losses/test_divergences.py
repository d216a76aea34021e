from __future__ import annotations

import math
from functools import partial
from typing import Any, get_args

import pytest
import torch

from dskd.losses.divergences import DIVERGENCES
from dskd.methods import DivergenceOptions
from dskd.methods.base import DivergenceName
from helpers import golden

# Every divergence with its defaults and with other values, at the ends too.
VARIANTS = [
    ("forward_kl", {}),
    ("reverse_kl", {}),
    ("total_variation", {}),
    *[("js_divergence", {"beta": beta}) for beta in (0.0, 0.1, 0.5, 0.7, 1.0)],
    *[(name, {"skew": skew}) for name in ("skewed_forward_kl", "skewed_reverse_kl") for skew in (0.0, 0.1, 0.6)],
    *[("adaptive_kl", {"head_share": share}) for share in (0.2, 0.5, 0.8)],
]
variants = pytest.mark.parametrize(
    ("name", "knobs"), VARIANTS, ids=lambda value: value if isinstance(value, str) else str(*value.values())
)


def _random(rows: int, columns: int, seed: int = 3, scale: float = 2.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, columns, generator=generator) * scale for _ in range(2)]


def _value_and_gradient(
    name: str, teacher: torch.Tensor, student: torch.Tensor, temperature: float = 1.0, **knobs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    student = student.detach().clone().requires_grad_()
    value = DIVERGENCES[name](teacher, student, temperature, **knobs)
    (gradient,) = torch.autograd.grad(value.sum(), student)
    return value.detach(), gradient


@pytest.mark.parametrize("case", golden.cases("divergence"), ids=lambda case: case["name"])
def test_value_and_gradient_equal_the_published_code(case: dict[str, float | str]) -> None:
    values = golden.tensors(case)
    student = values["student_logits"].clone().requires_grad_()
    ours = DIVERGENCES[case["divergence"]](values["teacher_logits"], student, case["temperature"])
    ours.sum().backward()
    torch.testing.assert_close(ours, values["value"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(student.grad, values["grad"], rtol=1e-5, atol=1e-6)


def test_variants_and_options_name_every_divergence() -> None:
    assert {name for name, _ in VARIANTS} == set(DIVERGENCES) == set(get_args(DivergenceName))


def _kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def _mix(p: list[float], q: list[float], share: float) -> list[float]:
    return [share * a + (1 - share) * b for a, b in zip(p, q, strict=True)]


def _js(p: list[float], q: list[float], beta: float) -> float:
    if beta in (0.0, 1.0):
        return _kl(p, q) if beta == 0.0 else _kl(q, p)
    return beta * _kl(p, _mix(p, q, beta)) + (1 - beta) * _kl(q, _mix(p, q, beta))


def _share_of_forward(p: list[float], q: list[float], head_share: float) -> float:
    mass, head, tail = 0.0, 0.0, 0.0
    for a, b in sorted(zip(p, q, strict=True), reverse=True):
        if mass < head_share:
            head += abs(a - b)
        else:
            tail += abs(a - b)
        mass += a
    return head / (head + tail)


def _adaptive(p: list[float], q: list[float], head_share: float) -> float:
    share = _share_of_forward(p, q, head_share)
    return share * _kl(p, q) + (1 - share) * _kl(q, p)


# The same objectives in probability space, one token and one word at a time.
REFERENCES = {
    "forward_kl": _kl,
    "reverse_kl": lambda p, q: _kl(q, p),
    "total_variation": lambda p, q: sum(max(a - b, 0.0) for a, b in zip(p, q, strict=True)),
    "js_divergence": _js,
    "skewed_forward_kl": lambda p, q, skew: _kl(p, _mix(p, q, skew)),
    "skewed_reverse_kl": lambda p, q, skew: _kl(q, _mix(q, p, skew)),
    "adaptive_kl": _adaptive,
}


def _softmax(logits: list[float], temperature: float) -> list[float]:
    weights = [math.exp(value / temperature) for value in logits]
    return [weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@variants
def test_equals_a_reference_in_probability_space(name: str, knobs: dict[str, Any], temperature: float) -> None:
    teacher, student = _random(5, 17)
    expected = torch.tensor(
        [
            REFERENCES[name](_softmax(t, temperature), _softmax(s, temperature), **knobs)
            for t, s in zip(teacher.tolist(), student.tolist(), strict=True)
        ]
    )
    with_gradient = _value_and_gradient(name, teacher, student, temperature, **knobs)[0]
    for found in (DIVERGENCES[name](teacher, student, temperature, **knobs), with_gradient):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@variants
def test_gradient_equals_finite_differences(name: str, knobs: dict[str, Any]) -> None:
    temperature, step = 1.5, 1e-5
    teacher, student = _random(2, 7, seed=4, scale=1.0)
    _, gradient = _value_and_gradient(name, teacher, student, temperature, **knobs)
    for t, s, found in zip(teacher.tolist(), student.tolist(), gradient.tolist(), strict=True):
        p = _softmax(t, temperature)
        value = partial(REFERENCES[name], **knobs)
        if name == "adaptive_kl":  # its weights take no gradient
            share = _share_of_forward(p, _softmax(s, temperature), **knobs)
            value = lambda p, q, share=share: share * _kl(p, q) + (1 - share) * _kl(q, p)  # noqa: E731
        for column, derivative in enumerate(found):
            up, down = (
                value(p, _softmax([*s[:column], s[column] + move, *s[column + 1 :]], temperature))
                for move in (step, -step)
            )
            assert derivative == pytest.approx((up - down) / (2 * step), abs=1e-6)


def test_two_words_by_hand() -> None:
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.0, math.log(3.0)]])  # (¾, ¼) and (¼, ¾)
    half_ln_3, to_the_middle = 0.5 * math.log(3), 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    expected = {
        ("forward_kl", None): half_ln_3,
        ("reverse_kl", None): half_ln_3,
        ("adaptive_kl", None): half_ln_3,
        ("total_variation", None): 0.5,
        ("js_divergence", None): to_the_middle,
        ("skewed_forward_kl", 0.5): to_the_middle,
        ("skewed_reverse_kl", 0.5): to_the_middle,
        ("skewed_forward_kl", None): 0.75 * math.log(0.75 / 0.3) + 0.25 * math.log(0.25 / 0.7),  # m = 0.1 p + 0.9 q
        ("skewed_reverse_kl", None): 0.25 * math.log(0.25 / 0.7) + 0.75 * math.log(0.75 / 0.3),  # m = 0.9 p + 0.1 q
    }
    for (name, skew), value in expected.items():
        knobs = {} if skew is None else {"skew": skew}
        assert DIVERGENCES[name](teacher, student, **knobs).item() == pytest.approx(value, rel=1e-5), (name, skew)


def test_the_greatest_values_are_those_of_distributions_without_a_common_word() -> None:
    teacher, student = torch.tensor([[0.0, -math.inf]]), torch.tensor([[-math.inf, 0.0]])
    beta, skew = 0.3, 0.2
    expected = {
        "total_variation": ({}, 1.0),
        "js_divergence": ({"beta": beta}, -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)),
        "skewed_forward_kl": ({"skew": skew}, -math.log(skew)),
        "skewed_reverse_kl": ({"skew": skew}, -math.log(skew)),
    }
    for name, (knobs, value) in expected.items():
        assert DIVERGENCES[name](teacher, student, **knobs).item() == pytest.approx(value, rel=1e-5), name


def test_beta_weighs_the_teacher_and_the_ends_are_no_limits() -> None:
    teacher, student = _random(4, 9)
    js = DIVERGENCES["js_divergence"]
    torch.testing.assert_close(js(teacher, student, beta=0.2), js(student, teacher, beta=0.8))
    assert not torch.allclose(js(teacher, student, beta=0.2), js(teacher, student, beta=0.8), rtol=0.01)
    for end, near, name in ((0.0, 1e-3, "forward_kl"), (1.0, 1 - 1e-3, "reverse_kl")):
        kl = DIVERGENCES[name](teacher, student)
        assert torch.equal(js(teacher, student, beta=end), kl)
        assert (js(teacher, student, beta=near) < 0.002 * kl).all()
        torch.testing.assert_close(js(teacher, student, beta=near) / 1e-3, kl, rtol=0.1, atol=0.0)


@pytest.mark.parametrize("shift", [0.0, 5.0])
@variants
def test_equal_distributions_are_at_zero(name: str, knobs: dict[str, Any], shift: float) -> None:
    if shift and name == "total_variation":
        pytest.skip(
            "the gradient of |p − q| jumps at zero, so it is zero only where the logits are the same to the bit"
        )
    logits = torch.cat([_random(3, 50)[0], torch.full((3, 2), -math.inf)], -1)
    value, gradient = _value_and_gradient(name, logits + shift, logits, 1.3, **knobs)
    torch.testing.assert_close(value, torch.zeros(3), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(gradient, torch.zeros(3, 52), rtol=0.0, atol=1e-6)


@variants
def test_a_token_that_both_models_mask_is_as_if_it_were_not_there(name: str, knobs: dict[str, Any]) -> None:
    teacher, student = _random(4, 12)
    teacher[:, [2, 7]] = student[:, [2, 7]] = -math.inf
    kept = [column for column in range(12) if column not in (2, 7)]
    value, gradient = _value_and_gradient(name, teacher, student, 1.3, **knobs)
    expected, expected_gradient = _value_and_gradient(name, teacher[:, kept], student[:, kept], 1.3, **knobs)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[:, kept], expected_gradient)
    assert (gradient[:, [2, 7]] == 0.0).all()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9])
@pytest.mark.parametrize(("noise", "tolerance"), [(3.0, 1e-5), (0.1, 1e-4), (0.01, 5e-3)])
def test_the_js_divergence_keeps_its_digits_where_the_models_agree(
    temperature: float, beta: float, noise: float, tolerance: float
) -> None:
    student, step = _random(4, 3_000, scale=3.0)
    teacher = student + noise * step
    value, gradient = _value_and_gradient("js_divergence", teacher, student, temperature, beta=beta)
    wide = student.double().requires_grad_()
    p, q = (teacher.double() / temperature).softmax(-1), (wide / temperature).softmax(-1)
    m = beta * p + (1 - beta) * q
    exact = (beta * p * (p / m).log() + (1 - beta) * q * (q / m).log()).sum(-1)
    (exact_gradient,) = torch.autograd.grad(exact.sum(), wide)
    torch.testing.assert_close(value.double(), exact.detach(), rtol=tolerance, atol=0.0)
    assert (gradient - exact_gradient).norm() <= tolerance * exact_gradient.norm()


def test_the_js_divergence_of_probabilities_below_the_least_float_is_that_of_zeros() -> None:
    teacher, student = torch.tensor([[0.0, -300.0, -400.0, 0.0]]), torch.tensor([[0.0, -400.0, -300.0, -200.0]])
    value, gradient = _value_and_gradient("js_divergence", teacher, student)
    expected, expected_gradient = _value_and_gradient(
        "js_divergence", torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -80.0]])
    )
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[:, [0, 3]], expected_gradient, rtol=1e-5, atol=1e-7)
    assert (gradient[:, [1, 2]] == 0.0).all()


@pytest.mark.parametrize("masked", ["teacher", "student"])
@variants
def test_a_token_that_one_model_masks_is_finite_in_value_and_gradient(
    name: str, knobs: dict[str, Any], masked: str
) -> None:
    teacher, student = _random(4, 12)
    logits = teacher if masked == "teacher" else student
    very_low = logits.clone()
    very_low[:, 5] = -80.0
    logits[:, 5] = -math.inf
    value, gradient = _value_and_gradient(name, teacher, student, **knobs)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    near = (very_low, student) if masked == "teacher" else (teacher, very_low)
    bound, _ = _value_and_gradient(name, *near, **knobs)
    assert (value >= bound - 1e-5).all()  # nothing that is infinite in theory is dropped


def test_what_only_the_teacher_masks_is_unlearned() -> None:
    teacher, student = torch.tensor([[0.0, 0.0, -math.inf]]), torch.zeros(1, 3)
    for name in ("forward_kl", "reverse_kl", "js_divergence", "total_variation", "adaptive_kl"):
        gradient = _value_and_gradient(name, teacher, student)[1]
        assert gradient[0, 2] > 0.0 > gradient[0, 0], name


@pytest.mark.parametrize("autocast", [False, True])
@variants
def test_half_precision_logits_are_compared_in_float32(name: str, knobs: dict[str, Any], autocast: bool) -> None:
    teacher, student = (logits.bfloat16() for logits in _random(3, 50))
    expected, expected_gradient = _value_and_gradient(name, teacher.float(), student.float(), 1.3, **knobs)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value, gradient = _value_and_gradient(name, teacher, student, 1.3, **knobs)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient.bfloat16())


@variants
def test_options_hand_a_divergence_its_parameter(name: str, knobs: dict[str, Any]) -> None:
    option = {"beta": "js_beta", "skew": "skew", "head_share": "head_share"}
    options = {option[knob]: value for knob, value in knobs.items()}
    distance = DivergenceOptions(divergence=name, temperature=1.7, **options).distance()
    teacher, student = _random(3, 9)
    torch.testing.assert_close(distance(teacher, student), DIVERGENCES[name](teacher, student, 1.7, **knobs))

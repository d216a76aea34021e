"""Sampled-token methods of on-policy distillation against slow loops in float64, and what their gradients are on average."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dskd import losses, methods
from dskd.errors import InputError
from dskd.losses.tokens import SideTokens
from helpers.method_cases import objective, with_statistics
from helpers.on_policy_cases import (
    assert_same,
    clipped,
    random_batch,
    responses_of,
    sampled_responses,
    slow_probabilities,
)
from helpers.token_batches import changed, token_batch

EVERY = ["opd", "g-opd", "iw-opd", "opd-chunks", "opd-control"]


def _written(batch: Any, q: list[Tensor]) -> tuple[Any, list[float]]:
    """(the batch as if older weights had written it, their log-probabilities of its labels)."""
    generator = torch.Generator().manual_seed(5)
    labels = batch.student.labels.tolist()
    shifts = torch.randn(len(labels), generator=generator).tolist()
    old = [
        math.log(q[t][label].item()) - 0.4 * shift for t, (label, shift) in enumerate(zip(labels, shifts, strict=True))
    ]
    return changed(batch, student_written_log_probabilities=torch.tensor(old)), old


def _slow(batch: Any, leaves: list[Tensor], advantages: Any, *, stale: bool) -> tuple[Any, Tensor, list[Tensor]]:
    """(the batch, the mean clipped loss over sampled tokens, leaves); `advantages`: (log q_old, log p, batch) -> {token: A}."""
    q, p, variables = slow_probabilities(batch, leaves)
    labels = batch.student.labels.tolist()
    old = [math.log(q[t][label].item()) for t, label in enumerate(labels)]
    if stale:
        batch, old = _written(batch, q)
    log_p = [math.log(p[t][label].item()) for t, label in enumerate(labels)]
    found = advantages(old, log_p, batch)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for tokens in sampled_responses(batch):
        for t in tokens:
            total = total + clipped(q[t][labels[t]].log(), old[t], found[t])
            count += 1
    return batch, total / count, variables


def _opd(discount: float = 0.0, limit: float = math.inf) -> Any:
    def advantages(old: list[float], log_p: list[float], batch: Any) -> dict[int, float]:
        found = {}
        for tokens in responses_of(batch):
            for t in tokens:
                value = sum(discount ** (k - t) * (log_p[k] - old[k]) for k in tokens if k >= t)
                found[t] = max(-limit, min(limit, value))
        return found

    return advantages


def _g_opd(scale: float) -> Any:
    def advantages(old: list[float], log_p: list[float], batch: Any) -> dict[int, float]:
        log_r = batch.reference.label_log_probabilities.tolist()
        return {t: scale * (log_p[t] - log_r[t]) - (old[t] - log_r[t]) for t in range(len(old))}

    return advantages


def _iw_opd(gamma: float, *, everything: bool) -> Any:
    def advantages(old: list[float], log_p: list[float], batch: Any) -> dict[int, float]:
        found = {}
        for tokens in responses_of(batch):
            sizes = {t: abs(log_p[t] - old[t]) for t in tokens}
            whole = sum(sizes[t] for t in (tokens if everything else tokens[:-1]))
            for t in tokens:
                before = sum(sizes[u] for u in tokens if u < t)
                found[t] = (1 + gamma * (1 - before / max(whole, 1e-8))) * (log_p[t] - old[t])
        return found

    return advantages


def _control(kind: str, tokens_of: str) -> Any:
    def advantages(old: list[float], log_p: list[float], batch: Any) -> dict[int, float]:
        q = batch.student.head.logits(batch.student.hidden).detach().double().softmax(-1)
        found = dict.fromkeys(range(len(old)), 0.0)
        for tokens in responses_of(batch):
            lowest = sorted(tokens, key=lambda t: (old[t], t))[: math.ceil(len(tokens) / 5)]
            chosen = lowest if tokens_of == "lowest" else [t for t in tokens if t not in lowest]
            entropies = {t: -sum(x * math.log(x) for x in q[t].tolist()) for t in chosen}
            for t in chosen:
                reach = max(entropies.values()) - min(entropies.values())
                of_entropy = -0.5 - ((entropies[t] - min(entropies.values())) / (2 * reach) if reach else 0.0)
                found[t] = {"constant": -0.5, "entropy": of_entropy, "teacher": log_p[t] - old[t]}[kind]
        return found

    return advantages


CASES = {
    "opd": ("opd", {}, _opd()),
    "opd, later tokens": ("opd", {"discount": 0.7}, _opd(0.7)),
    "opd, whole text": ("opd", {"discount": 1.0}, _opd(1.0)),
    "opd, bounded": ("opd", {"advantage_limit": 0.5}, _opd(limit=0.5)),
    "g-opd": ("g-opd", {}, _g_opd(1.25)),
    "g-opd, between": ("g-opd", {"reward_scale": 0.3}, _g_opd(0.3)),
    "iw-opd": ("iw-opd", {}, _iw_opd(0.5, everything=False)),
    "iw-opd, TRL's D": ("iw-opd", {"normaliser": "all", "gamma": 0.9}, _iw_opd(0.9, everything=True)),
    "opd-chunks": ("opd-chunks", {}, _opd()),
    "opd-chunks, weighted": ("opd-chunks", {"gamma": 0.5}, _iw_opd(0.5, everything=False)),
    "control": ("opd-control", {}, _control("constant", "lowest")),
    "control, OPSA": ("opd-control", {"advantage": "entropy"}, _control("entropy", "lowest")),
    "opd on the lowest": ("opd-control", {"advantage": "teacher"}, _control("teacher", "lowest")),
    "opd on the others": ("opd-control", {"advantage": "teacher", "tokens": "others"}, _control("teacher", "others")),
}


@pytest.mark.reference("opd", "g-opd", "iw-opd", "opd-chunks", "opd-control")
@pytest.mark.parametrize("stale", [False, True], ids=["fresh", "stale"])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradient_are_those_of_a_slow_loop_over_tokens(case: str, stale: bool) -> None:
    name, options, advantages = CASES[case]
    method = methods.get(name)(options)
    batch, leaves = random_batch(method, (5, 1, 7, 11, 1))
    batch, slow, variables = _slow(batch, leaves, advantages, stale=stale)
    assert_same(objective(method, with_statistics(method, batch)), leaves, slow, variables)


@pytest.mark.parametrize("estimator", ["abs", "k2", "k3"])
def test_differentiated_estimates_are_those_of_a_slow_loop(estimator: str) -> None:
    method = methods.get("opd")({"form": "differentiated", "estimator": estimator})
    batch, leaves = random_batch(method)
    q, p, variables = slow_probabilities(batch, leaves)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for tokens in sampled_responses(batch):
        for t in tokens:
            label = int(batch.student.labels[t])
            d = q[t][label].log() - p[t][label].log()
            total = total + {"abs": d.abs(), "k2": d**2 / 2, "k3": ((-d).exp() + d - 1).clamp(max=10)}[estimator]
            count += 1
    assert_same(objective(method, batch), leaves, total / count, variables)


# What the gradient is on average: Σ_y q(y) times the gradient where y was sampled.


def _expected_gradient(method: Any, seed: int = 3, size: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    """(Σ_y q(y) ∇ loss(y), z, log p): one position, a text of one token, float64."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()
    other = torch.randn(size, generator=generator, dtype=torch.float64)
    from dskd.modeling.lm_head import Head

    head = Head(torch.eye(size, dtype=torch.float64), None, 1.0, 0.0, size)
    total = torch.zeros(size, dtype=torch.float64)
    for y in range(size):
        label, one = torch.tensor([y]), torch.zeros(1, dtype=torch.long)
        batch = token_batch(head, z[None], label, head, other[None], label, one, one)
        batch = changed(
            batch,
            student_sampled=torch.ones(1, dtype=torch.bool),
            student_sizes=torch.ones(1, dtype=torch.long),
            student_groups=one,
            teacher_groups=one,
        )
        batch.reference = SideTokens(label_log_probabilities=other.log_softmax(-1)[label] - 1.0)
        loss = objective(method, with_statistics(method, batch))
        total += z.softmax(-1)[y].item() * torch.autograd.grad(loss, z)[0]
    return total, z, other.log_softmax(-1)


def _reverse(z: Tensor, log_p: Tensor) -> Tensor:
    return losses.DIVERGENCES["reverse_kl"].__wrapped__(log_p[None], z[None]).sum()


def _check_average(method: Any, divergence: Any) -> None:
    found, z, log_p = _expected_gradient(method)
    (expected,) = torch.autograd.grad(divergence(z, log_p), z)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("opd", {}),
        ("opd", {"discount": 0.9}),
        ("opd", {"form": "differentiated", "estimator": "k2"}),
        ("opd", {"form": "differentiated", "estimator": "k1+"}),
        ("opd", {"form": "differentiated", "estimator": "k3+"}),
        ("g-opd", {"reward_scale": 1.0}),
        ("iw-opd", {"gamma": 0.0}),
        ("iw-opd", {"gamma": 0.0, "form": "log_likelihood"}),
        ("opd-chunks", {}),
        ("opd-control", {"advantage": "teacher"}),  # the only token of a text is among its lowest
        ("opd-full", {}),
        ("opd-top-k", {"top_k": 11}),
        ("opd-top-k", {"top_k": 10, "remainder": "one_outcome"}),
        ("opd-top-k", {"top_k": 4, "remainder": "unbiased_tail"}),
        ("opd-student-top-k", {"top_k": 11}),
    ],
    ids=str,
)
def test_on_average_the_gradient_is_that_of_the_reverse_divergence(name: str, options: dict[str, Any]) -> None:
    _check_average(methods.get(name)(options), _reverse)


def test_on_average_k3_has_the_gradient_of_the_forward_divergence_and_abs_of_total_variation() -> None:
    def forward(z: Tensor, log_p: Tensor) -> Tensor:
        return (log_p.exp() * (log_p - z.log_softmax(-1))).sum()

    def variation(z: Tensor, log_p: Tensor) -> Tensor:
        return (log_p.exp() - z.softmax(-1)).abs().sum()

    options = {"form": "differentiated", "estimator": "k3"}
    _check_average(methods.get("opd")(options), forward)
    _check_average(methods.get("opd")({**options, "estimator": "abs"}), variation)


def test_the_released_tail_of_the_top_k_also_lowers_the_mass_of_the_list() -> None:
    def biased(z: Tensor, log_p: Tensor) -> Tensor:
        return _reverse(z, log_p) + z.softmax(-1)[log_p.topk(4).indices].sum()

    _check_average(methods.get("opd-top-k")({"top_k": 4, "remainder": "sampled_tail"}), biased)


@pytest.mark.parametrize(
    ("estimator", "form", "reason"),
    [
        ("k1", "differentiated", "the gradient of k1 is zero on average; fix: form: policy_gradient"),
        ("k3", "policy_gradient", "raises KL.* fix: estimator: k1"),
        ("k2", "policy_gradient", "less probable, whatever the teacher says; fix: estimator: k1"),
        ("abs", "policy_gradient", "less probable, whatever the teacher says; fix: estimator: k1"),
        ("k3+", "policy_gradient", "fix: estimator: k1"),
    ],
)
def test_estimators_with_no_gradient_or_a_wrong_one_are_refused(estimator: str, form: str, reason: str) -> None:
    with pytest.raises(InputError, match=rf"methods\.opd: estimator {estimator.replace('+', '.')} .*{reason}"):
        methods.get("opd")({"estimator": estimator, "form": form})


def test_what_is_refused_has_the_gradient_that_the_message_says() -> None:
    z = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    log_p = torch.randn(11, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    log_q = z.log_softmax(-1)
    q, difference = log_q.exp().detach(), log_q - log_p

    def gradient(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss, z, retain_graph=True)[0]

    assert gradient((q * losses.estimate("k1", difference)).sum()).abs().max() < 1e-12
    by_k3 = gradient((q * losses.estimate("k3", difference).detach() * log_q).sum())
    both = gradient(_reverse(z, log_p) - (log_p.exp() * (log_p - log_q)).sum())
    torch.testing.assert_close(by_k3, both, rtol=1e-4, atol=1e-6)


# Identities between methods, and what does not count.


@pytest.mark.parametrize("name", ["g-opd", "iw-opd", "opd-chunks"])
def test_at_their_neutral_setting_they_are_sampled_token_distillation(name: str) -> None:
    neutral = {"g-opd": {"reward_scale": 1.0}, "iw-opd": {"gamma": 0.0}}.get(name, {})
    found = []
    for method in (methods.get("opd")(), methods.get(name)(neutral)):
        batch, leaves = random_batch(method)
        loss = objective(method, with_statistics(method, batch))
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for ours, plain in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", sorted(n for n in methods.METHODS if "opd" in n))
def test_text_of_the_data_has_no_loss(name: str) -> None:
    method = methods.get(name)()
    batch, leaves = random_batch(method)
    assert method.counts(batch) == {key: torch.tensor(12.0) for key in method.counts(batch)}
    for mask in (None, torch.zeros(13, dtype=torch.bool)):
        none = with_statistics(method, changed(batch, student_sampled=mask))
        loss = objective(method, none)
        assert loss.item() == 0
        assert all(not gradient.any() for gradient in torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize(
    "name", [n for n in EVERY if n != "opd-control"] + ["opd-full", "opd-top-k", "opd-student-top-k"]
)
@pytest.mark.parametrize("shift", [0, 1])
def test_a_teacher_like_the_student_teaches_nothing_and_one_a_token_late_does(name: str, shift: int) -> None:
    method = methods.get(name)({"top_k": 5} if "top-k" in name else {})
    batch, leaves = random_batch(method)
    batch.teacher.head = batch.student.head.detach()
    batch.teacher.hidden = batch.student.hidden.detach().roll(shift, 0)
    if method.requires.reference:
        logits = batch.teacher.head.logits(batch.student.hidden.detach())
        log_r, _ = losses.own_log_probabilities(logits, batch.student.labels)
        batch.reference = SideTokens(label_log_probabilities=log_r)
    loss = objective(method, with_statistics(method, batch))
    largest = max(gradient.abs().max().item() for gradient in torch.autograd.grad(loss, leaves))
    assert largest > 1e-2 if shift else max(largest, abs(loss.item())) < 1e-5


@pytest.mark.parametrize("name", ["opd", "iw-opd", "g-opd", "opd-chunks"])
def test_a_teacher_that_gives_the_probability_of_the_text_alone_is_enough(name: str) -> None:
    method = methods.get(name)()
    batch, leaves = random_batch(method)
    logits = batch.teacher.head.logits(batch.teacher.hidden)
    log_p, _ = losses.own_log_probabilities(logits, batch.teacher.labels)
    known = changed(batch, teacher_head=None, teacher_hidden=None, teacher_label_log_probabilities=log_p)
    found = []
    for each in (batch, known):
        loss = objective(method, with_statistics(method, each))
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for ours, plain in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-7)


def test_metrics_say_how_far_the_teacher_is_and_what_is_clipped() -> None:
    method = methods.get("opd")()
    batch, leaves = random_batch(method)
    q, p, _ = slow_probabilities(batch, leaves)
    batch, old = _written(batch, q)
    method.terms(batch)
    kept = [t for tokens in sampled_responses(batch) for t in tokens]
    labels = batch.student.labels.tolist()
    advantages = [math.log(p[t][labels[t]].item()) - old[t] for t in kept]
    ratios = [q[t][labels[t]].item() / math.exp(old[t]) for t in kept]
    cut = [(a > 0 and r > 1.2) or (a < 0 and (r < 0.8 or r > 3)) for a, r in zip(advantages, ratios, strict=True)]
    found = {name: (term.total / term.normalizer).item() for name, term in batch.metrics.items()}
    assert found["advantage"] == pytest.approx(sum(advantages) / 12, rel=1e-4)
    assert found["positive_advantages"] == pytest.approx(sum(a > 0 for a in advantages) / 12)
    assert found["clipped_share"] == pytest.approx(sum(cut) / 12)
    assert 0 < sum(cut) < 12


def test_at_another_temperature_the_probability_of_a_text_is_of_no_use() -> None:
    method = methods.get("opd")({"temperature": 2.0})
    assert method.requires.teacher_outputs == ("hidden_states",)
    assert method.requires.outputs_with_options == {"text_log_probabilities": "temperature: 1"}

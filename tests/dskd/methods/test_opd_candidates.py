"""Top-K methods of on-policy distillation against slow loops over candidates in float64, and what of their options goes together."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dskd import methods
from dskd.errors import InputError
from helpers.method_cases import objective, with_statistics
from helpers.on_policy_cases import (
    assert_same,
    clipped,
    random_batch,
    sampled_responses,
    slow_probabilities,
)
from helpers.token_batches import changed


def _best(values: Tensor, k: int) -> list[int]:
    return sorted(range(len(values)), key=lambda v: -values[v].item())[:k]


def _top_k_loss(q: Tensor, p: Tensor, label: int, options: dict[str, Any]) -> Tensor:
    """Of one position, by the words of the options."""
    k, remainder = options.get("top_k", 32), options.get("remainder", "renormalised")
    support = {
        "teacher": _best(p, k),
        "student": _best(q, k),
        "union": sorted({*_best(p, k), *_best(q, k)}),
        "sampled": [label],
        "teacher_and_sampled": sorted({*_best(p, k), label}),
    }[options.get("support", "teacher")]
    own, other = [q[v] for v in support], [p[v] for v in support]
    if remainder == "renormalised":
        own, other = ([x / sum(side) for x in side] for side in (own, other))
    elif remainder == "one_outcome":
        own, other = ([*side, 1 - sum(side)] for side in (own, other))
    divergence, total = options.get("divergence", "reverse_kl"), torch.zeros((), dtype=torch.float64)
    for a, b in zip(own, other, strict=True):
        if divergence == "reverse_kl":
            ratio = a.log() - b.log()
            bound = options.get("clip_log_ratio", math.inf)
            total = total + a * (ratio if abs(ratio.item()) <= bound else math.copysign(bound, ratio.item()))
        elif divergence == "forward_kl":
            floor = math.exp(options.get("log_probability_floor", -math.inf))
            total = total + b.clamp_min(floor) * (b.clamp_min(floor).log() - a.clamp_min(floor).log())
        else:
            m = 0.3 * b + 0.7 * a
            total = total + 0.3 * b * (b / m).log() + 0.7 * a * (a / m).log()
        if remainder == "unbiased_tail":
            total = total - a + b
    if remainder in ("sampled_tail", "unbiased_tail") and label not in support:
        total = total + math.log(q[label].item() / p[label].item()) * (q[label] / q[label].item())
    limit = options.get("loss_limit")
    return total if limit is None else total.clamp(0.0, limit)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"top_k": 4},
    {"top_k": 4, "support": "student"},
    {"top_k": 3, "support": "union", "divergence": "js_divergence", "js_beta": 0.3},
    {"top_k": 3, "support": "teacher_and_sampled"},
    {"top_k": 3, "support": "union", "remainder": "one_outcome", "divergence": "js_divergence", "js_beta": 0.3},
    {"support": "sampled", "remainder": "one_outcome"},
    {"top_k": 4, "remainder": "one_outcome", "divergence": "forward_kl"},
    {"top_k": 4, "remainder": "none"},
    {"top_k": 4, "clip_log_ratio": 0.5},
    {"top_k": 4, "remainder": "none", "divergence": "forward_kl", "log_probability_floor": -3.0, "loss_limit": 1.5},
    {"top_k": 4, "remainder": "sampled_tail"},
    {"top_k": 4, "remainder": "unbiased_tail"},
]


@pytest.mark.reference("opd-top-k")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: " ".join(map(str, options.values())) or "defaults")
def test_the_top_k_loss_is_that_of_a_slow_loop(options: dict[str, Any]) -> None:
    method = methods.get("opd-top-k")(options)
    batch, leaves = random_batch(method)
    q, p, variables = slow_probabilities(batch, leaves)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for tokens in sampled_responses(batch):
        for t in tokens:
            total = total + _top_k_loss(q[t], p[t], int(batch.student.labels[t]), options)
            count += 1
    assert_same(objective(method, batch), leaves, total / count, variables)


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_the_share_of_tokens_with_the_highest_entropy_of_each_response(share: float) -> None:
    method = methods.get("opd-top-k")({"top_k": 4, "entropy_share": share, "masked_texts": ("unused here",)})
    batch, leaves = random_batch(method, (5, 2, 7, 10, 1))
    masked = (int(batch.student.labels[0]), int(batch.student.labels[9]))
    method.masked_ids = masked
    q, p, variables = slow_probabilities(batch, leaves)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for tokens in sampled_responses(batch):
        seen: set[int] = set()
        able = []
        for t in tokens:
            label = int(batch.student.labels[t])
            if label in masked and label not in seen:
                seen.add(label)
            else:
                able.append(t)
        entropies = {t: -(q[t] * q[t].log()).sum().item() for t in able}
        kept = sorted(able, key=lambda t: -entropies[t])[: max(1, math.floor(share * len(able) + 1e-9))]
        for t in kept:
            total = total + _top_k_loss(q[t], p[t], int(batch.student.labels[t]), {"top_k": 4})
            count += 1
    assert method.counts(batch)["distillation"] == count  # known before the forward
    batch = with_statistics(method, batch)
    assert method.counts(batch)["distillation"] == count
    assert_same(objective(method, batch), leaves, total / count, variables)


def test_masked_texts_become_the_tokens_that_the_student_writes_them_with() -> None:
    class Tokenizer:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            assert not add_special_tokens
            return [len(word) for word in text.split()]

    method = methods.get("opd-top-k")({"masked_texts": ("a bbb", "cc")})
    method.use_tokenizers(Tokenizer(), None)
    assert method.masked_ids == (1, 2, 3)


@pytest.mark.parametrize("remainder", ["renormalised", "none", "one_outcome"])
def test_a_teacher_that_gives_its_most_probable_tokens_alone_is_enough(remainder: str) -> None:
    method = methods.get("opd-top-k")({"top_k": 4, "remainder": remainder})
    assert "top_k" in method.requires.teacher_outputs
    batch, leaves = random_batch(method)
    log_p = batch.teacher.head.logits(batch.teacher.hidden).log_softmax(-1)
    best = log_p.topk(6)  # more than are asked for
    known = changed(
        batch,
        teacher_head=None,
        teacher_hidden=None,
        teacher_top_k_ids=best.indices,
        teacher_top_k_log_probabilities=best.values,
    )
    found = []
    for each in (batch, known):
        loss = objective(method, each)
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    for ours, plain in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"top_k": 1}, "no gradient; fix: remainder: one_outcome"),
        ({"support": "sampled"}, "no gradient; fix: remainder: one_outcome"),
        ({"remainder": "none", "divergence": "js_divergence"}, "fix: renormalised or one_outcome"),
        ({"remainder": "unbiased_tail", "divergence": "forward_kl"}, "fix: divergence: reverse_kl"),
        ({"clip_log_ratio": 5, "divergence": "forward_kl"}, "fix: leave it out"),
        ({"loss_limit": 10}, "fix: leave them out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        methods.get("opd-top-k")(options)


def test_what_reads_the_sampled_token_needs_exact_sampling_and_a_whole_teacher() -> None:
    plain, tail = (methods.get("opd-top-k")(o).requires for o in ({}, {"remainder": "unbiased_tail"}))
    assert not plain.exact_sampling
    assert tail.exact_sampling
    assert (plain.written_statistics, tail.written_statistics) == ("none", "log_probabilities")
    assert plain.teacher_outputs == ("hidden_states", "top_k")
    assert tail.teacher_outputs == ("hidden_states",)


# Candidates


def _candidates(q: Tensor, p: Tensor, k: int, support: str) -> list[int]:
    own, other = set(_best(q, k)), set(_best(p, k))
    found = {
        "student": own,
        "teacher": other,
        "intersection": own & other,
        "union": own | other,
        "union-intersection": own ^ other,
    }
    return sorted(found[support])


@pytest.mark.reference("opd-student-top-k")
@pytest.mark.parametrize("weights", ["student", "teacher", "uniform"])
@pytest.mark.parametrize("support", ["student", "teacher", "intersection", "union", "union-intersection"])
def test_the_loss_of_candidates_is_that_of_a_slow_loop(support: str, weights: str) -> None:
    method = methods.get("opd-student-top-k")({"top_k": 3, "support": support, "weights": weights})
    batch, leaves = random_batch(method)
    q, p, variables = slow_probabilities(batch, leaves)
    total, count, sizes = torch.zeros((), dtype=torch.float64), 0, set()
    for tokens in sampled_responses(batch):
        for t in tokens:
            ids = _candidates(q[t], p[t], 3, support)
            sizes.add(len(ids))
            mass = {"student": q, "teacher": p, "uniform": [torch.ones(19)] * 13}[weights][t].detach()
            whole = sum(mass[v].item() for v in ids)
            if support == "union-intersection" and weights != "uniform":
                whole = 1.0
            for v in ids:
                old = q[t][v].log().item()
                advantage = -mass[v].item() / whole * (old - p[t][v].log().item())
                total = total + clipped(q[t][v].log(), old, advantage)
            count += 1
    if support == "intersection":
        assert 0 in sizes  # a position without a candidate has no loss
    assert_same(objective(method, batch), leaves, total / count, variables)


def test_candidates_of_old_weights_have_their_ratio() -> None:
    method = methods.get("opd-student-top-k")({"top_k": 3})
    batch, leaves = random_batch(method)
    q, p, variables = slow_probabilities(batch, leaves)
    generator = torch.Generator().manual_seed(2)
    before = torch.stack(q).detach().log() + 0.3 * torch.randn(13, 19, generator=generator)
    best = before.log_softmax(-1).topk(5)
    batch = changed(
        batch, student_written_top_k_ids=best.indices, student_written_top_k_log_probabilities=best.values.float()
    )
    total, count = torch.zeros((), dtype=torch.float64), 0
    for tokens in sampled_responses(batch):
        for t in tokens:
            ids, old = best.indices[t, :3].tolist(), best.values[t, :3].float().tolist()
            whole = sum(map(math.exp, old))
            for v, log_old in zip(ids, old, strict=True):
                advantage = -math.exp(log_old) / whole * (log_old - p[t][v].log().item())
                total = total + clipped(q[t][v].log(), log_old, advantage)
            count += 1
    assert method.requires.written_statistics == "top_k"
    assert_same(objective(method, batch), leaves, total / count, variables)


def test_the_gradient_of_candidates_is_that_of_a_divergence_on_them_divided_by_their_mass() -> None:
    method = methods.get("opd-student-top-k")({"top_k": 4})
    batch, leaves = random_batch(method)
    q, p, variables = slow_probabilities(batch, leaves)
    total = torch.zeros((), dtype=torch.float64)
    for tokens in sampled_responses(batch):
        for t in tokens:
            ids = _best(q[t], 4)
            whole = sum(q[t][v] * (q[t][v] / p[t][v]).log() - q[t][v] + p[t][v] for v in ids)
            total = total + whole / sum(q[t][v].item() for v in ids)
    expected = torch.autograd.grad(total / 12, variables)
    found = torch.autograd.grad(objective(method, batch), leaves)
    for ours, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), slow, rtol=1e-4, atol=1e-6)


def test_the_overlap_of_two_lists_is_reported() -> None:
    for name, options in (
        ("opd-student-top-k", {"top_k": 4, "support": "union"}),
        ("opd-top-k", {"top_k": 4, "support": "union"}),
    ):
        method = methods.get(name)(options)
        batch, leaves = random_batch(method)
        q, p, _ = slow_probabilities(batch, leaves)
        method.terms(batch)
        shares = [
            len(set(_best(q[t], 4)) & set(_best(p[t], 4))) / 4 for tokens in sampled_responses(batch) for t in tokens
        ]
        assert len(shares) == 12
        term = batch.metrics["overlap"]
        assert (term.total / term.normalizer).item() == pytest.approx(sum(shares) / 12)


@pytest.mark.reference("opd-full")
@pytest.mark.parametrize("options", [{}, {"divergence": "js_divergence", "js_beta": 0.3, "temperature": 1.7}], ids=str)
def test_the_whole_divergence_is_that_of_a_slow_loop(options: dict[str, Any]) -> None:
    method = methods.get("opd-full")(options)
    batch, leaves = random_batch(method)
    q, p, variables = slow_probabilities(batch, leaves, options.get("temperature", 1.0))
    total, count = torch.zeros((), dtype=torch.float64), 0
    for tokens in sampled_responses(batch):
        for t in tokens:
            m = 0.3 * p[t] + 0.7 * q[t]
            jensen_shannon = (0.3 * p[t] * (p[t] / m).log() + 0.7 * q[t] * (q[t] / m).log()).sum()
            total = total + (jensen_shannon if options else (q[t] * (q[t] / p[t]).log()).sum())
            count += 1
    assert_same(objective(method, batch), leaves, total / count, variables)

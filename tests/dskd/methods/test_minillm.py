"""MiniLLM against a slow loop over tokens in float64, its advantages by hand, its sampling, and runs on the student's own text."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from dskd import methods
from dskd.errors import InputError
from dskd.methods.minillm import ADVANTAGE, LOG_SAMPLED
from dskd.modeling.loading import load_model, load_tokenizer
from dskd.rollouts.sampler import Prompt, Sample, TransformersSampler
from dskd.rollouts.teacher_mixed_sampler import TeacherMixedSampler
from dskd.tokenization.vocabulary import Vocabulary
from dskd.training.run import TrainingOptions, train
from helpers import method_cases
from helpers.rollouts import Written, make_rollouts, numbered_rows, with_prompt
from helpers.token_batches import changed
from helpers.training_runs import assert_same_weights, saved_weights

SIZES = (7, 4, 6)  # the first and the last example are sampled
ROLLOUTS = {"share": 1.0, "max_new_tokens": 10}


def _alone(sums: torch.Tensor) -> torch.Tensor:
    return sums


def _batch(method: Any, seed: int = 0) -> tuple[Any, list[torch.Tensor]]:
    """A batch of three examples, without scores. (batch, leaves)"""
    batch, _, leaves = method_cases.case(method, tokens=sum(SIZES), seed=seed)
    written = torch.tensor([True, False, True]).repeat_interleave(torch.tensor(SIZES))
    return changed(
        batch, student_sizes=torch.tensor(SIZES), student_sampled=written, student_per_token_statistics=None
    ), leaves


def _scored(method: Any, *batches: Any) -> list[Any]:
    with torch.no_grad():
        scores = method.precompute_step(list(batches), _alone)
    return [changed(batch, student_per_token_statistics=found) for batch, found in zip(batches, scores, strict=True)]


def _log_q(batch: Any) -> torch.Tensor:
    with torch.no_grad():
        log_q = batch.student.head.logits(batch.student.hidden).log_softmax(-1)
    return log_q.gather(-1, batch.student.labels.unsqueeze(-1)).squeeze(-1)


def _loss(method: Any, batch: Any) -> torch.Tensor:
    terms = method.terms(batch)
    return method.objective({name: term.total / term.normalizer.clamp_min(1) for name, term in terms.items()})


def _slow_loss(
    batch: Any,
    leaves: list[torch.Tensor],
    *,
    mix: float,
    discount: float,
    scaling: float,
    clip: float,
    epsilon: float,
    weight: float,
    rate: float,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Token by token in probability space, with sums over the vocabulary; gradients through q alone."""
    hidden, rows = (leaf.detach().double().requires_grad_() for leaf in leaves)
    size = batch.student.head.size
    teacher = batch.teacher.head.weight.double()[:size]
    q = [(rows[:size] @ h).softmax(-1) for h in hidden]
    whole = [(rows @ h).softmax(-1) for h in hidden]
    p = [(teacher @ batch.teacher.hidden[int(j)].double()).softmax(-1) for j in batch.teacher.pairs]
    labels = batch.student.labels.tolist()
    old = [q[t][label].item() for t, label in enumerate(labels)]  # of the weights that wrote
    if batch.student.written_log_probabilities is not None:
        old = batch.student.written_log_probabilities.double().exp().tolist()
    examples, first = [], 0
    for n in batch.student.sizes.tolist():
        examples.append(range(first, first + n))
        first += n
    returns = {}
    for tokens in (examples[0], examples[2]):
        rewards = []
        for t in tokens:
            reward = (math.log(p[t][labels[t]]) - math.log(old[t])) / scaling
            rewards.append(max(-clip, min(clip, reward)))
        for k, t in enumerate(tokens):
            total = sum(discount**i * reward for i, reward in enumerate(rewards[k:]))
            returns[t] = total / (len(tokens) - k)
    mean = sum(returns.values()) / len(returns)
    variance = sum((value - mean) ** 2 for value in returns.values()) / len(returns)
    policy = single = truth = kept = torch.zeros((), dtype=torch.float64)
    for t, label in enumerate(labels):
        if t in returns:
            advantage = (returns[t] - mean) / math.sqrt(variance + 1e-8)
            sampled = (1 - mix) * old[t] + mix * p[t][label].item()
            ratio = q[t][label] / sampled
            inside = min(max(ratio.item(), 1 - epsilon), 1 + epsilon)
            worse = max(-advantage * ratio.item(), -advantage * inside)
            # Where the clipped one is taken and differs, there is no gradient.
            policy = policy + (-advantage * ratio if worse == -advantage * ratio.item() else worse)
            single = single + sum(q[t][v] * (q[t][v] / p[t][v]).log() for v in range(size))
        else:
            truth = truth - whole[t][label].log()
            kept = kept + sum(p[t][v] * (p[t][v] / q[t][v]).log() for v in range(size))
    n, m = len(returns), len(labels) - len(returns)
    loss = (policy + single) / n + weight * ((1 - rate) * truth + rate * kept) / m
    return loss, [hidden, rows]


@pytest.mark.reference("minillm")
@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, (0.2, 0.95, 0.5, 100.0, 0.2, 1.0, 0.5)),
        (
            {"teacher_mix": 0.6, "discount": 0.7, "reward_scaling": 2.0, "reward_clip": 0.3, "clip_range": 0.05}
            | {"data_weight": 0.4, "kd_rate": 0.8},
            (0.6, 0.7, 2.0, 0.3, 0.05, 0.4, 0.8),
        ),
        ({"teacher_mix": 0.0, "discount": 1.0}, (0.0, 1.0, 0.5, 100.0, 0.2, 1.0, 0.5)),
    ],
    ids=["published", "other", "student alone"],
)
@pytest.mark.parametrize("stale", [False, True])
def test_value_and_gradient_are_those_of_a_slow_loop_over_tokens(
    options: dict[str, Any], numbers: tuple[float, ...], stale: bool
) -> None:
    method = methods.get("minillm")(options)
    batch, leaves = _batch(method)
    if stale:  # the student wrote with other weights; 0 is what text of the data has
        by_other = _log_q(_batch(method, seed=5)[0]).masked_fill(~batch.student.sampled, 0.0)
        batch = changed(batch, student_written_log_probabilities=by_other)
    (batch,) = _scored(method, batch)
    loss = _loss(method, batch)
    names = ("mix", "discount", "scaling", "clip", "epsilon", "weight", "rate")
    slow, variables = _slow_loss(batch, leaves, **dict(zip(names, numbers, strict=True)))
    torch.testing.assert_close(loss.detach().double(), slow.detach(), rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(slow, variables), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_defaults_are_those_of_the_published_runs() -> None:
    options = methods.get("minillm")().options
    assert (options.teacher_mix, options.discount, options.clip_range) == (0.2, 0.95, 0.2)
    assert (options.reward_scaling, options.data_weight, options.kd_rate) == (0.5, 1.0, 0.5)


def test_returns_are_discounted_and_divided_by_what_is_left() -> None:
    from dskd.methods.minillm import _mean_returns

    method = methods.get("minillm")()
    batch = changed(_batch(method)[0], student_sizes=torch.tensor([3, 1, 0, 2]))
    rewards = torch.tensor([1.0, 2.0, 3.0, -4.0, 6.0, 8.0], dtype=torch.float64)
    # (1 + 2/2 + 3/4) / 3, (2 + 3/2) / 2, 3; -4; (6 + 8/2) / 2, 8
    expected = [2.75 / 3, 1.75, 3.0, -4.0, 5.0, 8.0]
    assert _mean_returns(rewards, batch, 0.5).tolist() == pytest.approx(expected)
    assert _mean_returns(rewards, batch, 0.0).tolist() == pytest.approx([1 / 3, 1.0, 3.0, -4.0, 3.0, 8.0])


def test_advantages_are_whitened_over_all_sampled_tokens_of_the_step_however_it_is_split() -> None:
    method = methods.get("minillm")()
    one, two = (_batch(method, seed)[0] for seed in (1, 2))
    found = [batch.student.per_token_statistics for batch in _scored(method, one, two)]
    sampled = one.student.sampled
    together = torch.cat([scores[sampled, ADVANTAGE] for scores in found])
    assert together.mean().item() == pytest.approx(0, abs=1e-5)
    assert together.std(unbiased=False).item() == pytest.approx(1, rel=1e-4)
    for scores in found:
        assert scores[~sampled, ADVANTAGE].eq(0).all()
        assert abs(scores[sampled, ADVANTAGE].mean().item()) > 1e-3  # not of each micro-batch
    # Two processes, each of which sees what both have added up.
    sums = {}

    def collect(which: int) -> Callable:
        def total(own: torch.Tensor) -> torch.Tensor:
            sums[which] = own
            return own

        return total

    with torch.no_grad():
        for k, batch in enumerate((one, two)):
            method.precompute_step([batch], collect(k))
        for k, batch in enumerate((one, two)):
            (scores,) = method.precompute_step([batch], lambda own: sums[0] + sums[1])
            torch.testing.assert_close(scores, found[k])


def test_a_token_outside_the_clip_range_has_no_gradient_of_its_advantage_where_that_would_lead_further() -> None:
    method = methods.get("minillm")({"data_weight": 0.0})
    batch, _ = _batch(method)
    hidden = batch.student.hidden.detach().requires_grad_()
    logits = batch.student.head.logits(hidden.detach())
    log_q = logits.log_softmax(-1).gather(-1, batch.student.labels.unsqueeze(-1)).squeeze(-1)
    tokens = [0, 1, 2, 3, 4]
    log_ratio = torch.tensor([1.3, 1.3, 0.7, 0.7, 1.0]).log()
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])
    scores = torch.zeros(sum(SIZES), 2)
    scores[:, LOG_SAMPLED] = log_q
    scores[tokens, ADVANTAGE], scores[tokens, LOG_SAMPLED] = advantage, log_q[tokens] - log_ratio
    terms = method.terms(changed(batch, student_hidden=hidden, student_per_token_statistics=scores))
    # −1.2, 1.3, −0.7, 0.8 and −1, by max(−A s, −A clip(s)); all other advantages are zero.
    assert terms["policy_gradient"].total.item() == pytest.approx(-1.2 + 1.3 - 0.7 + 0.8 - 1.0, rel=1e-5)
    (gradient,) = torch.autograd.grad(terms["policy_gradient"].total, hidden)
    moved = gradient.abs().sum(-1)[:5] > 0
    assert moved.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("shift", [0, 1])
def test_a_teacher_like_the_student_gives_no_gradient_and_one_that_is_a_token_late_does(shift: int) -> None:
    method = methods.get("minillm")({"kd_rate": 1.0})
    batch, leaves = _batch(method)
    batch.teacher.head = batch.student.head.detach()
    batch.teacher.hidden = batch.student.hidden.detach().roll(shift, 0)
    (batch,) = _scored(method, batch)
    loss = _loss(method, batch)
    gradients = torch.autograd.grad(loss, leaves)
    largest = max([loss.abs().item(), *(gradient.abs().max().item() for gradient in gradients)])
    assert largest > 1e-2 if shift else largest < 1e-5


def test_parts_of_a_batch_add_up() -> None:
    method = methods.get("minillm")()
    (batch,) = _scored(method, _batch(method)[0])
    whole = method.terms(batch)
    parts = [method.terms(batch.part(first, first + 5)) for first in (0, 5, 10, 15)]
    for name, term in whole.items():
        torch.testing.assert_close(sum(part[name].total for part in parts), term.total)
        assert sum(part[name].normalizer for part in parts) == term.normalizer == method.counts(batch)[name]
    assert whole["policy_gradient"].normalizer == 13
    assert whole["cross_entropy"].normalizer == 4


def test_over_many_texts_the_gradient_is_that_of_the_reverse_divergence_of_the_next_token() -> None:
    """One-token responses: the policy gradient's mean over y ~ p̃ is the gradient of KL(q ‖ p), by a sum over all y."""
    method = methods.get("minillm")({"teacher_mix": 0.3, "clip_range": 0.999, "reward_scaling": 1.0})
    batch, _ = _batch(method)
    size = batch.student.head.size
    hidden = batch.student.hidden.detach()[:1].requires_grad_()
    q = batch.student.head.logits(hidden).log_softmax(-1).squeeze(0)
    p = batch.teacher.head.logits(batch.teacher.hidden[:1]).log_softmax(-1).squeeze(0)
    (expected,) = torch.autograd.grad((q.exp() * (q - p)).sum(), hidden, retain_graph=True)
    every, one = torch.arange(size), torch.ones(size, dtype=torch.bool)
    mixed = (0.7 * q.exp() + 0.3 * p.exp()).detach()
    scores = torch.stack([(p - q).detach(), mixed.log()], -1)  # the reward itself as the advantage
    many = changed(
        batch,
        student_hidden=hidden.expand(size, -1),
        student_labels=every,
        teacher_hidden=batch.teacher.hidden[:1].expand(size, -1),
        teacher_labels=every,
        teacher_pairs=every,
        student_pairs=every,
        student_sampled=one,
        student_per_token_statistics=scores,
    )
    total = torch.zeros_like(expected)
    for y in range(size):
        term = method.terms(many.part(y, y + 1))["policy_gradient"].total
        total += mixed[y] * torch.autograd.grad(term, hidden, retain_graph=True)[0]
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=1e-5)


# Sampling


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_text_is_drawn_from_the_mixture_as_a_slow_loop_without_cache_and_padding_draws_it(
    dropping: Path, share: float
) -> None:
    tokenizer, student = load_tokenizer(dropping / "same"), load_model(dropping / "same")
    teacher = load_model(dropping / "teacher").eval()
    vocabulary, end = Vocabulary.from_tokenizer(tokenizer), tokenizer.eos_token_id
    sampler = TeacherMixedSampler(student, vocabulary, end, teacher=teacher, teacher_mix=share)
    data = datasets.load_from_disk(str(dropping / "same-data"))
    prompts = [row["student_ids"][: row["student_prompt_length"]] for row in data.select(range(6))]
    own = [[5, 9, *prompt][: len(prompt) + k % 3] for k, prompt in enumerate(prompts)]  # of other lengths, too
    numbers = np.random.default_rng(0).random((6, 10))
    student.train()
    samples = sampler.sample([Prompt(*both) for both in zip(prompts, own, strict=True)], numbers)
    student.eval()
    known = [k for k in range(vocabulary.size) if vocabulary.token_bytes[k] or k == end]
    slow = []
    for prompt, other, row in zip(prompts, own, numbers, strict=True):
        ids = []
        for left in row:
            with torch.no_grad():
                z, w = (
                    model(input_ids=torch.tensor([before + ids]), use_cache=False).logits[0, -1, known].double()
                    for model, before in ((student, prompt), (teacher, other))
                )
            mixture = (1 - share) * z.softmax(-1) + share * w.softmax(-1)
            ids.append(known[int((mixture.cumsum(0) <= left * mixture.sum()).sum())])
            if ids[-1] in vocabulary.special_ids:
                break
        slow.append(ids)
    assert [sample.ids for sample in samples] == slow
    alone = TransformersSampler(student, vocabulary, end).sample([Prompt(p, p) for p in prompts], numbers)
    assert [sample.ids for sample in alone] != slow


def test_examples_stay_beside_the_text_that_is_written_for_them(world: Path) -> None:
    rows = numbered_rows(world, "same")[:6]
    written = Written(Sample([5, 0], ended=True))
    rollouts = make_rollouts(world, "same", written)
    rollouts._mix_in_offpolicy = True
    first, second = rollouts.take([rows[:2], rows[2:]], epoch=0, step=1)
    assert first[:2] == [{**row, "sampled": False} for row in rows[:2]]
    assert second[:4] == [{**row, "sampled": False} for row in rows[2:]]
    own = [row for batch in (first, second) for row in batch if row["sampled"]]
    assert len(own) == rollouts.counts["samples"] == len(with_prompt(rows)) > 0
    assert all(row["student_ids"][row["student_prompt_length"] :] == [5, 0] for row in own)


# Whole runs


def _run(world: Path, output: Path, method_options: dict[str, float] | None = None, **changes: Any) -> Any:
    options = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1, "rollouts": ROLLOUTS, **changes}
    return train(
        data=world / "same-data",
        student=world / "same",
        teacher=world / "teacher",
        method="minillm",
        method_options=method_options,
        options=TrainingOptions(**options),
        seed=3,
        output=output,
    )


@pytest.mark.slow
def test_on_its_own_text_the_student_comes_closer_to_the_teacher(world: Path, tmp_path: Path) -> None:
    def distance(rate: float) -> float:
        changes = {"steps": 40, "batch_size": 10, "learning_rate": rate, "logging_steps": 10}
        report = _run(world, tmp_path / str(rate), {"data_weight": 0.0}, **changes)
        assert report.rollouts.samples > 200
        return report.losses["single_step"]

    assert distance(3e-3) < 0.7 * distance(1e-12)


def test_a_batch_holds_the_examples_of_the_data_only_where_they_have_a_weight(world: Path, tmp_path: Path) -> None:
    both, alone = (_run(world, tmp_path / str(w), {"data_weight": w}, steps=1) for w in (1.0, 0.0))
    assert both.tokens > alone.tokens
    assert both.losses["cross_entropy"] > 0
    # What the student wrote is the same, and so are the terms on it.
    for term in ("policy_gradient", "single_step"):
        assert both.losses[term] == pytest.approx(alone.losses[term], rel=1e-5)


def test_a_run_that_was_killed_ends_with_the_same_weights(dropping: Path, tmp_path: Path) -> None:
    changes = {"checkpoint_steps": 2}
    _run(dropping, tmp_path / "whole", **changes)

    def kill(event: dict[str, Any]) -> None:
        if event["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            data=dropping / "same-data",
            student=dropping / "same",
            teacher=dropping / "teacher",
            method="minillm",
            options=TrainingOptions(
                steps=6, batch_size=4, learning_rate=1e-2, logging_steps=1, rollouts=ROLLOUTS, checkpoint_steps=2
            ),
            seed=3,
            output=tmp_path / "killed",
            progress=kill,
        )
    assert _run(dropping, tmp_path / "killed", **changes).resumed_from_step == 4
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "killed"), rtol=0, atol=0)


def test_batches_by_tokens_count_text_and_example(world: Path, tmp_path: Path) -> None:
    rows = numbered_rows(world, "same")
    longest = max(max(len(row["student_ids"]), row["student_prompt_length"] + 10) for row in rows)
    with pytest.raises(InputError, match=rf"batch_tokens: {2 * longest - 1}, but example \d+ has {2 * longest} tokens"):
        _run(world, tmp_path / "small", batch_tokens=2 * longest - 1, batch_size=16)
    _run(world, tmp_path / "fits", batch_tokens=200, batch_size=16, packing=True)


def test_bfloat16_products_train_as_well(world: Path, tmp_path: Path) -> None:
    report = _run(world, tmp_path, dtype="bfloat16", gradient_accumulation_steps=2, batch_size=2)
    assert all(math.isfinite(value) for value in report.losses.values())


@pytest.mark.parametrize(
    ("rollouts", "reason"),
    [
        (None, r"rollouts: minillm learns from on-policy text alone; fix: rollouts"),
        ({"share": 0.5}, r"fix: set share to 1"),
        ({"share": 1.0, "temperature": 0.7}, r"fix: set temperature and top_p to 1"),
        ({"share": 1.0, "top_p": 0.9}, r"fix: set temperature and top_p to 1"),
        ({"share": 1.0, "replay": {"schedule": "mixed"}}, r"fix: remove replay"),
    ],
)
def test_text_of_another_kind_is_refused(
    world: Path, tmp_path: Path, rollouts: dict[str, Any] | None, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        _run(world, tmp_path / "out", rollouts=rollouts)
    assert not (tmp_path / "out").exists()

"""The adversarial term of cross-model attention: two players, one loss, and what it must not depend on."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dskd.methods import get
from dskd.modeling.cross_model_attention import reverse_gradient
from dskd.modeling.lm_head import Head
from helpers.cross_model_attention_case import HIDDEN, SIZES, assert_terms_stay_on_the_device, case, example
from helpers.token_batches import changed, token_batch

TERMS = {"discriminator_queries": "student", "discriminator_keys": "teacher"}
RATE = 0.4


def _adversarial(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, Any]:
    """(method, the batch of three examples of the tests of dskd-v1-cma); P, Q and P_q are those of `_plain`."""
    _, batch = case(dtype)
    return _prepared(
        "dskd-v1-cma-ga", batch, dtype, {"adversarial_rate": RATE, "discriminator_hidden_size": 5} | options
    )


def _plain(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, Any]:
    _, batch = case(dtype)
    return _prepared("dskd-v1-cma", batch, dtype, options)


def _prepared(name: str, batch: Any, dtype: torch.dtype, options: dict[str, Any]) -> tuple[Any, Any]:
    method = get(name)({"temperature": 1.7, "kd_rate": 0.3, "accuracy_mask": False} | options)
    torch.manual_seed(3)
    method.prepare(batch.student.head, batch.teacher.head, None).to(dtype)
    return method, batch


def _loss(method: Any, batch: Any) -> torch.Tensor:
    return method.objective({name: term.total / term.normalizer for name, term in method.terms(batch).items()})


def _leaves(method: Any, batch: Any) -> dict[str, torch.Tensor]:
    return {"hidden": batch.student.hidden, "head": batch.student.head.weight} | dict(
        method.projectors.named_parameters()
    )


def _gradients(method: Any, batch: Any) -> dict[str, torch.Tensor]:
    leaves = _leaves(method, batch)
    return dict(zip(leaves, torch.autograd.grad(_loss(method, batch), leaves.values()), strict=True))


def _slow_terms(method: Any, batch: Any) -> dict[str, torch.Tensor]:
    """{term: mean}, a token and a unit at a time, by probabilities."""
    found = method.projectors.discriminator

    def probability_of_a_key(x: torch.Tensor) -> torch.Tensor:
        u = [
            sum(w * v for w, v in zip(row, x, strict=True)) + b
            for row, b in zip(found.gate.weight, found.gate.bias, strict=True)
        ]
        g = [1 / (1 + torch.exp(-value)) for value in u]
        mixed = [a * max(value, 0.0 * value) + (1 - a) * old for a, value, old in zip(g, u, x, strict=True)]
        logit = found.output.bias[0]
        for row, bias, weight in zip(found.hidden.weight, found.hidden.bias, found.output.weight[0], strict=True):
            value = sum(w * v for w, v in zip(row, mixed, strict=True)) + bias
            logit = logit + weight * (value if value > 0 else 0.1 * value)
        return 1 / (1 + torch.exp(-logit))

    means = dict.fromkeys(TERMS, 0.0)
    for number in range(3):
        part = example(batch, number)
        pairs = {
            side: [
                torch.cat([embedding[k] for k in ids])
                for ids in zip(getattr(part, side).inputs, getattr(part, side).labels, strict=True)
            ]
            for side, embedding in (("student", batch.student.embedding), ("teacher", batch.teacher.embedding))
        }
        for pair in pairs["student"]:
            query = method.projectors.query.weight @ pair + method.projectors.query.bias
            means["discriminator_queries"] -= torch.log(1 - probability_of_a_key(query)) / sum(SIZES["student"])
        keys = torch.stack(pairs["teacher"])
        for key in keys / keys.std():
            means["discriminator_keys"] -= torch.log(probability_of_a_key(key)) / sum(SIZES["teacher"])
    return means


@pytest.mark.reference("dskd-v1-cma-ga")
def test_terms_and_the_gradient_of_either_player_are_those_of_loops_over_tokens() -> None:
    method, batch = _adversarial()
    terms, found = method.terms(batch), _gradients(method, batch)
    slow_method, slow_batch = _adversarial(torch.float64)
    slow = _slow_terms(slow_method, slow_batch)
    for name, value in slow.items():
        assert (terms[name].total / terms[name].normalizer).item() == pytest.approx(value.item(), rel=1e-5)
    players = _leaves(slow_method, slow_batch)
    its_own = {name: leaf for name, leaf in players.items() if name.startswith("discriminator")}
    assert len(its_own) == 6
    descent = torch.autograd.grad(RATE * sum(slow.values()), its_own.values(), retain_graph=True)
    for name, expected in zip(its_own, descent, strict=True):
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-4, atol=1e-7)
    base = _gradients(*_plain())
    generator = {name: leaf for name, leaf in players.items() if name.startswith("query")}
    ascent = torch.autograd.grad(-RATE * slow["discriminator_queries"], generator.values())
    for name, share in zip(generator, ascent, strict=True):
        assert share.norm() > 1e-3 * base[name].norm()
        torch.testing.assert_close(found[name].double(), base[name] + share, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("player", "sign"), [("discriminator", 1), ("query", -1)])
def test_the_discriminator_descends_what_the_queries_ascend(player: str, sign: int) -> None:
    method, batch = _adversarial()
    parameters = [p for name, p in method.projectors.named_parameters() if name.startswith(player)]

    def separation() -> torch.Tensor:
        terms = method.terms(batch)
        return sum(terms[name].total / terms[name].normalizer for name in TERMS)

    gradients = torch.autograd.grad(separation(), parameters)
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
    values = []
    with torch.no_grad():
        for step in (1e-2, -2e-2):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter += step / norm * gradient
            values.append(separation().item())
    slope = (values[0] - values[1]) / 2e-2  # of the loss, along the gradient that the player is given
    assert norm > 1e-2
    assert slope == pytest.approx(sign * norm, rel=0.02)


def test_a_rate_of_zero_is_cross_model_attention() -> None:
    (method, batch), (plain, plain_batch) = _adversarial(adversarial_rate=0.0), _plain()
    terms, expected = method.terms(batch), plain.terms(plain_batch)
    assert terms.keys() == expected.keys() == method.counts(batch).keys()
    assert all(torch.equal(term.total, expected[name].total) for name, term in terms.items())
    assert torch.equal(_loss(method, batch), _loss(plain, plain_batch))
    found, others = _gradients(method, batch), _gradients(plain, plain_batch)
    assert found.keys() == others.keys()
    assert all(torch.equal(found[name], other) for name, other in others.items())


@pytest.mark.parametrize("rate", [0.01, 1.0])
def test_the_term_reaches_the_queries_and_the_discriminator_alone(rate: float) -> None:
    found, plain = _gradients(*_adversarial(adversarial_rate=rate)), _gradients(*_plain())
    assert {name for name, gradient in plain.items() if not torch.equal(found[name], gradient)} == {
        "query.weight",
        "query.bias",
    }
    own = {name: found[name] for name in found.keys() - plain.keys()}
    assert all(name.startswith("discriminator.") and gradient.any() for name, gradient in own.items())
    assert len(own) == 6


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_the_weight_is_the_rate_however_many_tokens_there_are(rate: float) -> None:
    method, batch = _adversarial(adversarial_rate=rate)
    terms = method.terms(batch)
    zero = {name: torch.zeros(()) for name in terms}
    for name in TERMS:
        assert method.objective(zero | {name: torch.tensor(3.0)}).item() == pytest.approx(3.0 * rate)
        assert terms[name].normalizer == sum(SIZES[TERMS[name]])
    assert method.objective(zero) == 0.0
    twice = changed(
        batch,
        **{
            f"{side}_{name}": getattr(getattr(batch, side), name).repeat(*([2] if name != "hidden" else [2, 1]))
            for side in SIZES
            for name in ("labels", "inputs", "hidden", "sizes")
        },
    )
    for name, term in method.terms(twice).items():
        torch.testing.assert_close(term.total / term.normalizer, terms[name].total / terms[name].normalizer)


def test_an_example_feels_neither_its_batch_mates_nor_their_padding() -> None:
    method, batch = _adversarial()
    terms = method.terms(batch)
    parts = [method.terms(example(batch, number)) for number in range(3)]
    for name, term in terms.items():
        torch.testing.assert_close(sum(part[name].total for part in parts), term.total, rtol=1e-5, atol=1e-6)
        assert sum(part[name].normalizer for part in parts) == term.normalizer == method.counts(batch)[name]
    leaves = _leaves(method, batch)
    whole, *split = (
        torch.autograd.grad(method.objective({name: term.total for name, term in each.items()}), leaves.values())
        for each in (terms, *parts)
    )
    for together, *alone in zip(whole, *split, strict=True):
        torch.testing.assert_close(together, sum(alone), rtol=1e-4, atol=1e-5)


def test_dropout_makes_it_random_and_there_is_none_by_default() -> None:
    for share, same in ((0.0, True), (0.5, False)):
        method, batch = _adversarial(discriminator_dropout=share)
        method.projectors.train()
        first, second = (method.terms(batch)["discriminator_keys"].total for _ in range(2))
        assert torch.equal(first, second) == same
    assert get("dskd-v1-cma-ga")().options.discriminator_dropout == 0.0


def _toy(seed: int) -> tuple[Any, Any]:
    """(method, batch) of 60 tokens a model; the discriminator sees queries and keys that a plane separates."""
    generator = torch.Generator().manual_seed(seed)
    given = {}
    for side, hidden in (("student", 4), ("teacher", 4)):
        embedding = torch.randn(40, hidden, generator=generator) + (2.0 if side == "teacher" else 0.0)
        ids = torch.randint(40, (2, 60), generator=generator)
        given |= {
            f"{side}_embedding": embedding,
            f"{side}_inputs": ids[0],
            f"{side}_labels": ids[1],
            f"{side}_hidden": torch.randn(60, hidden, generator=generator),
            f"{side}_sizes": torch.tensor([60]),
            f"{side}_head": Head(torch.zeros(40, hidden), None, 1.0, 0.0, 40),
        }
    batch = token_batch(**given)
    method = get("dskd-v1-cma-ga")({"discriminator_hidden_size": 16, "adversarial_rate": 1.0})
    torch.manual_seed(0)
    method.prepare(batch.student.head, batch.teacher.head, None)
    return method, batch


def _play(
    method: Any, batch: Any, players: str | tuple[str, str], steps: int, rate: float
) -> tuple[dict[str, float], float]:
    """Steps of Adam on the adversarial terms alone by the players named; (mean of either term, accuracy) after them."""
    trained = [p for name, p in method.projectors.named_parameters() if name.startswith(players)]
    optimizer = torch.optim.Adam(trained, lr=rate, betas=(0.5, 0.999))
    for _ in range(steps):
        terms = method.terms(batch)
        method.projectors.zero_grad()
        sum(terms[name].total / terms[name].normalizer for name in TERMS).backward()
        optimizer.step()
    terms = method.terms(batch)
    means = {name: (terms[name].total / terms[name].normalizer).item() for name in TERMS}
    accuracy = batch.metrics["discriminator_accuracy"]
    return means, (accuracy.total / accuracy.normalizer).item()


def _distance(method: Any, batch: Any) -> float:
    """Between the mean query and the mean key."""
    tokens = {
        side: torch.cat(
            [getattr(batch, side).embedding[getattr(getattr(batch, side), name)] for name in ("inputs", "labels")], 1
        )
        for side in SIZES
    }
    keys = tokens["teacher"] / tokens["teacher"].std()
    return (method.projectors.query(tokens["student"]).mean(0) - keys.mean(0)).norm().item()


@pytest.mark.parametrize("seed", [0, 1])
def test_the_discriminator_learns_to_separate_and_the_queries_to_move_to_the_keys(seed: int) -> None:
    method, batch = _toy(seed)
    chance, _ = _play(method, batch, "discriminator", 0, 0.01)
    assert sum(chance.values()) == pytest.approx(2 * math.log(2), abs=0.2)
    apart = _distance(method, batch)
    learned, accuracy = _play(method, batch, "discriminator", 40, 0.01)
    assert sum(learned.values()) < 0.2
    assert accuracy > 0.95
    assert _distance(method, batch) == apart  # that player moved nothing of the other's
    weights = [p.clone() for p in method.discriminator.parameters()]
    fooled, accuracy = _play(method, batch, "query", 20, 0.05)
    assert fooled["discriminator_queries"] > learned["discriminator_queries"] + 3.0
    assert fooled["discriminator_keys"] == learned["discriminator_keys"]
    assert accuracy < 0.8
    assert _distance(method, batch) < 0.5 * apart
    assert all(torch.equal(p, w) for p, w in zip(method.discriminator.parameters(), weights, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_both_players_at_once_bring_queries_and_keys_together(seed: int) -> None:
    method, batch = _toy(seed)
    apart = _distance(method, batch)
    _play(method, batch, ("discriminator", "query"), 100, 0.01)
    assert _distance(method, batch) < 0.75 * apart


def test_a_batch_without_tokens_and_a_teacher_without_any() -> None:
    method, batch = _adversarial()

    def without(*sides: str) -> Any:
        changes = {
            f"{side}_{name}": getattr(getattr(batch, side), name)[:0]
            for side in sides
            for name in ("labels", "inputs", "hidden")
        }
        return changed(batch, **changes, **{f"{side}_sizes": torch.zeros(3, dtype=torch.long) for side in sides})

    assert all(term.total == term.normalizer == 0 for term in method.terms(without("student", "teacher")).values())
    terms = method.terms(without("teacher"))
    assert terms["discriminator_keys"].total == terms["discriminator_keys"].normalizer == 0
    assert terms["discriminator_queries"].total == method.terms(batch)["discriminator_queries"].total


def test_it_is_trained_and_saved_with_the_projectors() -> None:
    method, _ = _adversarial()
    names = {name for name, _ in method.projectors.named_parameters()} & set(method.projectors.state_dict())
    assert {f"discriminator.{name}" for name, _ in method.discriminator.named_parameters()} < names
    assert method.discriminator.gate.weight.shape == (2 * HIDDEN["teacher"],) * 2
    assert not any(
        name.startswith("discriminator") for name in _adversarial(adversarial_rate=0.0)[0].projectors.state_dict()
    )


def test_reversing_changes_no_value() -> None:
    values = (torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 1e3).requires_grad_()
    reversed_ = reverse_gradient(values)
    assert torch.equal(reversed_, values)
    assert torch.equal(torch.autograd.grad(reversed_.sum(), values)[0], -torch.ones(1000))


def test_half_precision_leaves_the_discriminator_in_float32() -> None:
    method, batch = _adversarial()
    exact = method.terms(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = method.terms(batch)
    assert all(torch.equal(half[name].total, exact[name].total) for name in TERMS)
    assert not torch.equal(half["cross_entropy"].total, exact["cross_entropy"].total)


@pytest.mark.gpu
def test_terms_read_nothing_from_the_device() -> None:
    method, batch = _adversarial()
    assert_terms_stay_on_the_device(method, batch)

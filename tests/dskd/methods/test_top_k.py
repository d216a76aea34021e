"""Methods that learn from a teacher's k most probable tokens, against slow references, and against the same loss of everything."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd import methods
from dskd.errors import InputError
from dskd.losses.chunked import chunked_loss
from dskd.losses.tokens import TokenBatch
from helpers import method_cases
from helpers.method_cases import objective
from helpers.token_batches import changed

TAU = 1.3
ONE_OUTCOME = {"outside": "one_outcome"}
# Each method with options under which it can learn from top_k.
LEARNERS: list[tuple[str, dict[str, Any]]] = [
    ("kd", {}),
    ("kd", {"divergence": "reverse_kl"}),
    ("gkd", {"js_beta": 0.3}),
    ("distillm", {}),
    ("distillm", {"divergence": "skewed_reverse_kl"}),
    ("strict-kd", ONE_OUTCOME),
    ("strict-kd", {**ONE_OUTCOME, "divergence": "js_divergence"}),
    ("uld", {}),
]


def _probabilities(side: Any, temperature: float) -> torch.Tensor:
    """[tokens, vocabulary] in float64."""
    head = side.head
    logits = side.hidden.double() @ head.weight[: head.size].double().T
    if head.bias is not None:
        logits = logits + head.bias[: head.size].double()
    logits = logits * head.scale
    if head.softcap:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    return (logits / temperature).softmax(-1)


def _case(
    name: str, options: dict[str, Any], k: int, *, drop: int = 0, **more: Any
) -> tuple[Any, TokenBatch, torch.Tensor, list[torch.Tensor]]:
    """(method, a batch with the teacher's k best tokens alone, its whole distributions, leaves); `drop`: every other token has fewer."""
    method = methods.get(name)({"kd_rate": 0.4, "temperature": TAU, **options})
    batch, _, leaves = method_cases.case(method, **more)
    p = _probabilities(batch.teacher, TAU)
    best = p.topk(min(k, p.shape[-1]), dim=-1)
    ids, log_p = best.indices, best.values.log().float()
    if drop:
        ids[::2, -drop:], log_p[::2, -drop:] = -1, -torch.inf
    given = changed(
        batch, teacher_head=None, teacher_hidden=None, teacher_top_k_ids=ids, teacher_top_k_log_probabilities=log_p
    )
    return method, given, p, leaves


def _divergence(method: Any, p: list[Any], q: list[Any]) -> Any:
    """Over outcomes, in probability space."""

    def kl(a: list[Any], b: list[Any]) -> Any:
        return sum(x * torch.log(torch.as_tensor(x / y)) for x, y in zip(a, b, strict=True) if x > 0)

    def mixed(weight: float) -> list[Any]:
        return [weight * x + (1 - weight) * y for x, y in zip(p, q, strict=True)]

    options = method.options
    name = options.divergence
    if name == "js_divergence":
        m = mixed(options.js_beta)
        return options.js_beta * kl(p, m) + (1 - options.js_beta) * kl(q, m)
    return {
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "skewed_forward_kl": lambda: kl(p, mixed(options.skew)),
        "skewed_reverse_kl": lambda: kl(q, mixed(1 - options.skew)),
    }[name]()


def _slow(method: Any, batch: TokenBatch, p: torch.Tensor, leaves: list[torch.Tensor]) -> tuple[Any, list[Any]]:
    """The objective and its gradients, one pair and one outcome at a time."""
    q = _probabilities(batch.student, TAU)
    total: Any = 0.0
    for j, i in zip(batch.teacher.pairs.tolist(), batch.student.pairs.tolist(), strict=True):
        shown = [k for k in batch.teacher.top_k_ids[j].tolist() if k >= 0]
        if method.name == "uld":
            ranked = sorted(q[i], key=lambda value: -value.item())[: len(shown)]
            ranked += [torch.zeros(())] * (len(shown) - len(ranked))
            best = [p[j, k] for k in shown]
            total = total + sum((a - b).abs() for a, b in zip(best, ranked, strict=True))
            total = total + abs(sum(best) - sum(ranked))
            continue
        if method.name == "strict-kd":
            partner = dict(zip(method.teacher_ids.tolist(), method.student_ids.tolist(), strict=True))
            pairs = [(k, partner[k]) for k in shown if k in partner]
        else:
            pairs = [(k, k) for k in shown]
        outcomes = [p[j, k] for k, _ in pairs], [q[i, k] for _, k in pairs]
        outcomes[0].append(p[j].sum() - sum(outcomes[0]))
        outcomes[1].append(q[i].sum() - sum(outcomes[1]))
        total = total + _divergence(method, *outcomes)
    head = batch.student.head
    logits = batch.student.head.logits(batch.student.hidden, padded=True).double()
    entropy = torch.nn.functional.cross_entropy(logits, batch.student.labels)
    assert head.size < len(head.weight)
    value = 0.6 * entropy + 0.4 * total / len(batch.student.pairs)
    return value, list(torch.autograd.grad(value, leaves))


@pytest.mark.parametrize(("name", "options"), LEARNERS, ids=str)
@pytest.mark.parametrize(("k", "drop"), [(1, 0), (5, 0), (5, 2), (4, 4)])
@pytest.mark.parametrize("head", ["plain", "softcap"])
def test_loss_and_every_gradient_equal_a_slow_reference(
    name: str, options: dict[str, Any], k: int, drop: int, head: str
) -> None:
    method, batch, p, leaves = _case(name, options, k, drop=drop, tokens=9, head=head)
    loss = objective(method, batch)
    found = torch.autograd.grad(loss, leaves)
    expected, gradients = _slow(method, batch, p, leaves)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    for ours, slow in zip(found, gradients, strict=True):
        torch.testing.assert_close(ours, slow.to(ours.dtype), rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize(("name", "options"), LEARNERS, ids=str)
def test_the_whole_vocabulary_gives_the_loss_of_hidden_states_and_fewer_tokens_no_more(
    name: str, options: dict[str, Any]
) -> None:
    method, _, _, leaves = _case(name, options, 1, tokens=11)
    whole, _, of_whole = method_cases.case(method, tokens=11)
    expected = objective(method, whole)
    values = []
    for k in (1, 4, 20, 100):
        _, batch, _, leaves = _case(name, options, k, tokens=11)
        loss = objective(method, batch)
        values.append(loss.item())
    assert values[0] < values[1] < values[2] <= values[3] + 1e-6
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    for ours, all_of in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, of_whole), strict=True):
        torch.testing.assert_close(ours, all_of, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(("name", "options"), LEARNERS, ids=str)
def test_chunks_of_a_batch_add_up_to_the_whole(name: str, options: dict[str, Any]) -> None:
    method, batch, _, leaves = _case(name, options, 6, drop=1, tokens=13)
    expected = objective(method, batch)
    whole = dict(batch.metrics)
    method, parts, _, of_parts = _case(name, options, 6, drop=1, tokens=13)
    loss, _ = chunked_loss(method, parts, None, chunk_tokens=4)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    for ours, slow in zip(torch.autograd.grad(loss, of_parts), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, slow, rtol=1e-4, atol=1e-6)
    for metric in ("teacher_tail_mass", "teacher_accuracy"):
        torch.testing.assert_close(parts.metrics[metric].total, whole[metric].total)
        assert parts.metrics[metric].normalizer == len(batch.student.pairs)


@pytest.mark.parametrize("name", ["kd", "gkd", "distillm", "strict-kd", "uld"])
def test_reported_are_the_mean_probability_of_what_k_leaves_out_and_how_often_the_first_is_the_label(name: str) -> None:
    method, batch, p, _ = _case(name, ONE_OUTCOME if name == "strict-kd" else {}, 3, tokens=10)
    labels = batch.teacher.labels.clone()
    labels[::2] = p[::2].argmax(-1)
    batch = changed(batch, teacher_labels=labels)
    objective(method, batch)
    means = {key: (term.total / term.normalizer).item() for key, term in batch.metrics.items()}
    at_pairs = p[batch.teacher.pairs]
    left_out = 1 - at_pairs.topk(3, dim=-1).values.sum(-1)
    assert means["teacher_tail_mass"] == pytest.approx(left_out.mean().item(), rel=1e-5)
    hits = (at_pairs.argmax(-1) == labels[batch.teacher.pairs]).double().mean()
    assert means["teacher_accuracy"] == pytest.approx(hits.item())
    assert 0.3 < hits < 1


def test_where_every_token_is_known_nothing_is_reported_as_left_out() -> None:
    method, batch, *_ = _case("kd", {}, 1000, tokens=5)
    objective(method, batch)
    assert batch.metrics["teacher_tail_mass"].total < 1e-5


@pytest.mark.parametrize("options", [{}, {"outside": "one_outcome", "top_k": 3}, {"top_k": 3}])
def test_strict_distillation_learns_from_top_k_where_nothing_is_renormalised_and_all_of_o_is_compared(
    options: dict[str, Any],
) -> None:
    assert methods.get("strict-kd")(options).requires.teacher_outputs == ("hidden_states",)
    able = methods.get("strict-kd")(ONE_OUTCOME).requires
    assert able.teacher_outputs == ("hidden_states", "top_k")
    assert not able.outputs_with_options


def test_an_option_that_is_wrong_is_still_an_error() -> None:
    with pytest.raises(InputError, match=r"methods\.strict-kd\.outside"):
        methods.get("strict-kd")({"outside": "two_outcomes"})

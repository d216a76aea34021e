"""Multi-level optimal transport against loops in float64, over split and shuffled batches, and where it is zero."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from dskd.methods import get
from dskd.modeling.lm_head import Head
from helpers.token_batches import changed, token_batch

STUDENT, TEACHER = 11, 14
SIZES = {"student": [3, 4, 0, 5], "teacher": [4, 2, 3, 5]}
TERMS = ("absolute", "logarithmic", "sinkhorn")


def _heads() -> tuple[Head, Head]:
    random = partial(torch.randn, generator=torch.Generator().manual_seed(6))
    student = Head(random(STUDENT + 2, 5).requires_grad_(), random(STUDENT + 2).requires_grad_(), 0.8, 0.0, STUDENT)
    return student, Head(random(TEACHER + 1, 7), None, 1.0, 3.0, TEACHER)


def _examples() -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(student's hidden states, labels, teacher's hidden states) of each example."""
    generator = torch.Generator().manual_seed(2)
    random = partial(torch.randn, generator=generator)
    return [
        (random(n, 5), torch.randint(0, STUDENT, (n,), generator=generator), random(m, 7))
        for n, m in zip(SIZES["student"], SIZES["teacher"], strict=True)
    ]


def _batch(heads: tuple[Head, Head], examples: list[Any]) -> Any:
    student_sizes, teacher_sizes = ([len(example[k]) for example in examples] for k in (0, 2))
    pairs = [], []
    first = [0, 0]
    for sizes in zip(teacher_sizes, student_sizes, strict=True):
        for side in range(2):
            pairs[side].extend(range(first[side], first[side] + min(sizes)))
            first[side] += sizes[side]
    student, labels, teacher = (torch.cat(part) for part in zip(*examples, strict=True))
    return token_batch(
        heads[0],
        student.requires_grad_(),
        labels,
        heads[1],
        teacher,
        None,
        *(torch.tensor(side, dtype=torch.long) for side in pairs),
        student_sizes=torch.tensor(student_sizes),
        teacher_sizes=torch.tensor(teacher_sizes),
    )


def _slow_transport(
    teacher: torch.Tensor, student: torch.Tensor, options: dict[str, float | str]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three sums of one example from its logits, entry by entry."""
    n = len(teacher)
    sides = []
    for logits in (teacher, student):
        rows = []
        for row in logits:
            deviation = torch.sqrt(((row - row.mean()) ** 2).sum() / (len(row) - 1))
            weights = torch.exp(row / (deviation + 1e-4) / options["temperature"])
            rows.append(weights / weights.sum())
        sides.append(torch.stack(rows))
    p, q = sides
    ranked = [sorted(range(side.shape[1]), key=lambda v: -side[:, v].sum().item()) for side in (p, q)]
    teacher_ids = ranked[0][: options["top_k"]]
    if options["ranking"] == "independent":
        student_ids = ranked[1][: options["top_k"]]
    else:
        student_ids = []
        for k in teacher_ids:
            left = [v for v in range(STUDENT) if v not in student_ids]
            student_ids.append(min(left, key=lambda v: (q[:, v] - p[:, k]).abs().sum().item()))
    p, q = p[:, teacher_ids], q[:, student_ids]
    absolute = sum((p[t, k] - q[t, k]).abs() for t in range(n) for k in range(p.shape[1]))
    p_kept, q_kept = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    logarithmic = -sum(p_kept[t, k] * torch.log(q_kept[t, k]) for t in range(n) for k in range(p.shape[1]))
    p_soft, q_soft = (torch.sqrt(side) / torch.sqrt(side).sum(1, keepdim=True) for side in (p, q))
    cost = torch.stack([torch.stack([(p_soft[t] - q_soft[u]).abs().sum() for u in range(n)]) for t in range(n)])
    plan = torch.exp(-10 * cost)
    for _ in range(10):
        plan = torch.stack([row / row.sum() for row in plan])
        plan = torch.stack([column / column.sum() for column in plan.T]).T
    return absolute, logarithmic, (plan * cost).sum()


@pytest.mark.reference("multilevel-ot")
@pytest.mark.parametrize("ranking", ["independent", "matched"])
@pytest.mark.parametrize("top_k", [1, 4, 11])
def test_loss_and_every_gradient_equal_a_slow_reference(ranking: str, top_k: int) -> None:
    options = {"ranking": ranking, "top_k": top_k, "temperature": 1.3}
    weights = {"distillation_weight": 1.2, "logarithmic_weight": 0.3, "sinkhorn_weight": 0.7}
    heads, examples = _heads(), _examples()
    batch = _batch(heads, examples)
    method = get("multilevel-ot")(options | weights)
    terms = method.terms(batch)
    loss = method.objective({name: term.total / term.normalizer for name, term in terms.items()})

    head, teacher_head = heads
    logits = (batch.student.hidden.double() @ head.weight.double().T + head.bias.double()) * head.scale
    teacher_logits = torch.tanh(batch.teacher.hidden.double() @ teacher_head.weight[:TEACHER].double().T / 3.0) * 3.0
    sums = [torch.zeros((), dtype=torch.float64)] * 3
    student_rows = logits[:, :STUDENT].split(SIZES["student"])
    for ours, theirs in zip(student_rows, teacher_logits.split(SIZES["teacher"]), strict=True):
        n = min(len(ours), len(theirs))
        if n:
            parts = _slow_transport(theirs[:n], ours[:n], options)
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
    pairs = sum(map(min, SIZES["student"], SIZES["teacher"]))
    cross_entropy = -logits.log_softmax(-1)[torch.arange(len(logits)), batch.student.labels].mean()
    expected = cross_entropy + 1.2 * (sums[0] + 0.3 * sums[1] + 0.7 * sums[2]) / pairs
    for name, value in zip(TERMS, sums, strict=True):
        assert terms[name].total.item() == pytest.approx(value.item(), rel=1e-5)
        assert terms[name].normalizer.item() == pairs
    leaves = [batch.student.hidden, head.weight, head.bias]
    for ours, slow in zip(torch.autograd.grad(loss, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, slow.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ranking", ["independent", "matched"])
def test_the_result_depends_neither_on_batch_mates_nor_on_their_order(ranking: str) -> None:
    method = get("multilevel-ot")({"ranking": ranking, "top_k": 5})
    heads, examples = _heads(), _examples()
    whole = method.terms(_batch(heads, examples))
    for parts in ([examples[:2], examples[2:]], [[example] for example in examples], [examples[::-1]]):
        found = [method.terms(_batch(heads, part)) for part in parts]
        for name, term in whole.items():
            torch.testing.assert_close(sum(part[name].total for part in found), term.total)
            assert sum(part[name].normalizer for part in found) == term.normalizer


def test_a_student_that_is_its_teacher_has_no_gradient_unless_tokens_are_shifted() -> None:
    generator = torch.Generator().manual_seed(1)
    head = Head(torch.randn(29, 6, generator=generator), None, 1.0, 0.0, 29)
    hidden = torch.randn(9, 6, generator=generator)
    student = hidden.clone().requires_grad_()
    labels = torch.zeros(9, dtype=torch.long)
    method = get("multilevel-ot")({"top_k": 7})
    for shift in (0, 1):
        pairs = torch.arange(shift, 9), torch.arange(9 - shift)
        batch = token_batch(head, student, labels, head, hidden, None, *pairs)
        batch = changed(batch, student_sizes=torch.tensor([9 - shift]), teacher_sizes=torch.tensor([9 - shift]))
        terms = method.terms(batch)
        for name in ("absolute", "logarithmic"):
            (gradient,) = torch.autograd.grad(terms[name].total, student, retain_graph=True)
            if shift:
                assert gradient.abs().max() > 1e-3, name
            else:
                assert gradient.abs().max() < 1e-6, name
        assert (terms["absolute"].total.item() == 0.0) == (shift == 0)


def test_a_batch_without_pairs_has_the_cross_entropy_alone() -> None:
    heads = _heads()
    batch = _batch(heads, _examples()[2:3])
    terms = get("multilevel-ot")().terms(batch)
    assert all(term.total.item() == 0.0 and term.normalizer.item() == 0.0 for term in terms.values())

"""Cross-model attention: against the authors' own code, against loops over tokens, and what it must not depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dskd.errors import InputError
from dskd.methods import get
from dskd.modeling.cross_model_attention import CrossModelAttention, Layout
from dskd.modeling.lm_head import Head
from helpers import golden
from helpers.cross_model_attention_case import HIDDEN, SIZES, VOCABULARY, assert_terms_stay_on_the_device, case, example
from helpers.token_batches import changed, token_batch

TOLERANCE = {"rtol": 1e-5, "atol": 1e-6}
NAMES = {
    "nll_loss": "cross_entropy",
    "t2s_ce_loss": "teacher_to_student_cross_entropy",
    "t2s_kd_loss": "student_space",
    "s2t_kd_loss": "teacher_space",
    "t2s_acc": "teacher_to_student_accuracy",
}


def _from_golden(case: dict[str, Any]) -> tuple[dict[str, torch.Tensor], torch.Tensor, Any, Any, Any]:
    """(golden tensors, leaf of the student's hidden states, projectors, batch, method)."""
    values = golden.tensors(case)
    hidden = values["in/student_hidden"].clone().requires_grad_()
    heads = {
        "student": Head(values["in/student_head"].clone().requires_grad_(), None, 1.0, 0.0, 41),
        "teacher": Head(values["in/teacher_head"], None, 1.0, 0.0, 53),
    }
    labels = {"student": values["in/labels"], "teacher": values["in/teacher_labels"]}
    inputs = {"student": values["in/input_ids"], "teacher": values["in/teacher_input_ids"]}
    labelled = {side: ids != -100 for side, ids in labels.items()}
    method = get("dskd.upstream.methods:DualSpaceV1CrossModelAttention")(
        {
            "divergence": case["divergence"],
            "teacher_space_divergence": "forward_kl",
            "temperature": case["temperature"],
            "kd_rate": case["kd_rate"],
            "upstream_parity": True,
        }
    )
    projectors = method.prepare(heads["student"], heads["teacher"], None)
    for ours, theirs in (("teacher_to_student", "t2s"), ("student_to_teacher", "s2t"), ("query", "query")):
        linear = getattr(projectors, ours)
        linear.weight.data.copy_(values[f"in/{theirs}_weight"])
        linear.bias.data.copy_(values[f"in/{theirs}_bias"])
    batch = token_batch(
        heads["student"],
        hidden[labelled["student"]],
        labels["student"][labelled["student"]],
        heads["teacher"],
        values["in/teacher_hidden"][labelled["teacher"]],
        labels["teacher"][labelled["teacher"]],
        **{f"{side}_sizes": labelled[side].sum(1) for side in heads},
        **{f"{side}_inputs": inputs[side][labelled[side]] for side in heads},
        **{f"{side}_embedding": values[f"in/{side}_embedding"] for side in heads},
        teacher_padded_hidden=values["in/teacher_hidden"],
    )
    return values, hidden, projectors, batch, method


@pytest.mark.parametrize("case", golden.cases("dskd_v1_cma"), ids=lambda case: case["name"])
def test_every_term_and_gradient_equals_the_published_code(case: dict[str, Any]) -> None:
    values, hidden, projectors, batch, method = _from_golden(case)
    terms = method.terms(batch)
    loss = method.objective({name: term.total / term.normalizer for name, term in terms.items()})
    loss.backward()
    for theirs, ours in NAMES.items():
        assert terms[ours].normalizer == case["denominator"]
        assert (terms[ours].total / terms[ours].normalizer).item() == pytest.approx(case["terms"][theirs], rel=1e-5), (
            theirs
        )
    assert loss.item() == pytest.approx(case["terms"]["loss"], rel=1e-5)
    gradients = {"student_hidden": hidden.grad, "student_head": batch.student.head.weight.grad}
    for ours, theirs in (("teacher_to_student", "t2s"), ("student_to_teacher", "s2t"), ("query", "query")):
        linear = getattr(projectors, ours)
        gradients |= {f"{theirs}_weight": linear.weight.grad, f"{theirs}_bias": linear.bias.grad}
    assert set(gradients) == {name.removeprefix("grad/") for name in values if name.startswith("grad/")}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, values[f"grad/{name}"], **TOLERANCE)


@pytest.mark.parametrize("case", golden.cases("dskd_v1_cma"), ids=lambda case: case["name"])
def test_the_published_statistics_need_the_positions_without_a_label(case: dict[str, Any]) -> None:
    *_, batch, method = _from_golden(case)
    term = method.terms(changed(batch, teacher_padded_hidden=batch.teacher.hidden[None]))[
        "teacher_to_student_cross_entropy"
    ]
    assert abs(term.total / term.normalizer - case["terms"]["t2s_ce_loss"]) > 1e-3
    with pytest.raises(
        InputError, match=r"upstream_parity: prompt and padding .* are not known; fix: run the teacher live"
    ):
        method.terms(changed(batch, teacher_padded_hidden=None))


def _leaves(method: Any, batch: Any) -> list[torch.Tensor]:
    return [batch.student.hidden, batch.student.head.weight, *method.projectors.parameters()]


def _loss(method: Any, batch: Any) -> torch.Tensor:
    return method.objective({name: term.total / term.normalizer for name, term in method.terms(batch).items()})


def _kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return sum(a * torch.log(a / b) for a, b in zip(p, q, strict=True))


def _slow(method: Any, batch: Any, *, mask: bool = True, temperature: float = 1.0) -> dict[str, float | torch.Tensor]:
    """{term: mean} by loops over tokens, in probability space, float64."""
    double = {name: module.double() for name, module in method.projectors.named_children()}
    to_student, to_teacher, query = (double[n] for n in ("teacher_to_student", "student_to_teacher", "query"))
    embedded = {side: getattr(batch, side).embedding for side in SIZES}
    frozen = batch.student.head.detach()
    sums = dict.fromkeys(NAMES.values(), 0.0)
    for number in range(3):
        part = example(batch, number)

        def pair(side: str, k: int, part: Any = part) -> list[torch.Tensor]:
            return [embedded[side][getattr(getattr(part, side), name)[k]] for name in ("inputs", "labels")]

        keys = torch.stack([torch.cat(pair("teacher", j)) for j in range(len(part.teacher.labels))])
        targets = torch.stack([pair("teacher", j)[1] for j in range(len(part.teacher.labels))])
        values = to_student(part.teacher.hidden / part.teacher.hidden.std() + targets / targets.std())
        back = to_teacher(part.student.hidden)
        scores = torch.stack(
            [query(torch.cat(pair("student", i))) @ (keys / keys.std()).T for i in range(len(part.student.labels))]
        )
        scores = scores / (2 * HIDDEN["teacher"]) ** 0.5
        for i, label in enumerate(part.student.labels.tolist()):
            weights = torch.exp(scores[i]) / torch.exp(scores[i]).sum()
            z = frozen.logits((weights[:, None] * values).sum(0, keepdim=True))[0]
            own = batch.student.head.logits(part.student.hidden[i : i + 1], padded=True)[0]
            sums["cross_entropy"] -= torch.log(own.softmax(-1)[label])
            sums["teacher_to_student_cross_entropy"] -= torch.log(z.softmax(-1)[label])
            right = int(z.argmax()) == label
            sums["teacher_to_student_accuracy"] += float(right)
            if right or not mask:
                target = (z.detach() / (1.7 * temperature)).softmax(-1)
                sums["student_space"] += _kl(target, (own[: VOCABULARY["student"]] / 1.7).softmax(-1))
        for j in range(len(part.teacher.labels)):
            weights = torch.exp(scores[:, j]) / torch.exp(scores[:, j]).sum()
            mapped = batch.teacher.head.logits((weights[:, None] * back).sum(0, keepdim=True))[0]
            own = batch.teacher.head.logits(part.teacher.hidden[j : j + 1])[0]
            sums["teacher_space"] += _kl((own / 1.7).softmax(-1), (mapped / 1.7).softmax(-1))
    return {name: value / sum(SIZES["student"]) for name, value in sums.items()}


@pytest.mark.reference("dskd-v1-cma")
@pytest.mark.parametrize(
    "options", [{}, {"accuracy_mask": False}, {"accuracy_mask": False, "teacher_temperature": 2.5}]
)
def test_terms_and_gradients_are_those_of_loops_over_tokens(options: dict[str, Any]) -> None:
    method, batch = case(**options)
    found = torch.autograd.grad(_loss(method, batch), _leaves(method, batch))
    terms = method.terms(batch)
    assert 0 < terms["teacher_to_student_accuracy"].total < sum(SIZES["student"])  # so the mask lets some through
    slow_method, slow_batch = case(torch.float64, **options)
    slow = _slow(slow_method, slow_batch, mask=not options, temperature=options.get("teacher_temperature", 1.0))
    for name, value in slow.items():
        assert (terms[name].total / terms[name].normalizer).item() == pytest.approx(
            torch.as_tensor(value).item(), rel=1e-5, abs=1e-7
        ), name
    expected = torch.autograd.grad(slow_method.objective(slow), _leaves(slow_method, slow_batch))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spaces", ["both", "student", "teacher"])
def test_an_example_feels_neither_its_batch_mates_nor_their_padding(spaces: str) -> None:
    method, batch = case(spaces=spaces)
    terms = method.terms(batch)
    parts = [method.terms(example(batch, number)) for number in range(3)]
    for name, term in terms.items():
        torch.testing.assert_close(sum(part[name].total for part in parts), term.total, **TOLERANCE)
        assert sum(part[name].normalizer for part in parts) == term.normalizer == method.counts(batch)[name]
    leaves = [leaf for leaf in _leaves(method, batch) if leaf.requires_grad]
    whole = torch.autograd.grad(method.objective({name: term.total for name, term in terms.items()}), leaves)
    split = [
        torch.autograd.grad(method.objective({name: term.total for name, term in part.items()}), leaves)
        for part in parts
    ]
    for together, *alone in zip(whole, *split, strict=True):
        torch.testing.assert_close(together, sum(alone), rtol=1e-4, atol=1e-5)


def test_the_published_statistics_do_depend_on_batch_mates() -> None:
    method, batch = case(upstream_parity=True)

    def teacher_space(part: Any) -> torch.Tensor:
        padded = torch.stack([part.teacher.hidden, part.teacher.hidden])
        return method.terms(changed(part, teacher_padded_hidden=padded))["teacher_space"].total

    parts = [teacher_space(example(batch, number)) for number in range(3)]
    assert abs(teacher_space(batch) - sum(parts)) > 1e-4


@pytest.mark.parametrize("spaces", ["both", "student", "teacher"])
def test_gradients_reach_what_they_should(spaces: str) -> None:
    method, batch = case(spaces=spaces, kd_rate=1.0, accuracy_mask=False)
    _loss(method, batch).backward()
    reached = {name for name, p in method.projectors.named_parameters() if p.grad is not None and p.grad.any()}
    trained = {name for name, p in method.projectors.named_parameters() if p.requires_grad}
    unused = {"student": "student_to_teacher", "teacher": "teacher_to_student"}.get(spaces, "none")
    assert trained == {name for name, _ in method.projectors.named_parameters() if not name.startswith(unused)}
    assert reached == trained
    assert batch.student.hidden.grad.any()


def test_one_space_takes_no_product_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    logits = Head.logits

    def watched(self: Head, hidden: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append((self.weight.shape[0], len(hidden)))
        return logits(self, hidden, **options)

    monkeypatch.setattr(Head, "logits", watched)
    for spaces, expected in (("student", [(25, 11)] * 2), ("teacher", [(25, 11), (31, 10), (31, 10)])):
        seen.clear()
        method, batch = case(spaces=spaces)
        method.terms(batch)
        assert sorted(seen) == expected


def _equal_models(shift: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """One model as both, tokens all different, and queries that find themselves; the teacher's tokens rolled by `shift`."""
    generator = torch.Generator().manual_seed(1)
    tokens, hidden = 7, 64
    head = Head(torch.randn(31, hidden, generator=generator), None, 1.0, 0.0, 31)
    states, embedding = torch.randn(tokens, hidden, generator=generator), torch.randn(31, hidden, generator=generator)
    ids = torch.randperm(31, generator=generator)[: 2 * tokens].view(2, tokens)
    sizes = torch.tensor([tokens])
    batch = token_batch(
        head,
        states.clone().requires_grad_(),
        ids[1],
        head,
        states,
        ids[1].roll(shift),
        student_sizes=sizes,
        teacher_sizes=sizes,
        student_inputs=ids[0],
        teacher_inputs=ids[0].roll(shift),
        student_embedding=embedding,
        teacher_embedding=embedding,
    )
    method = get("dskd-v1-cma")({"spaces": "teacher", "kd_rate": 1.0})
    projectors = method.prepare(head, head, None)
    with torch.no_grad():
        for linear, factor in ((projectors.query, 100.0), (projectors.student_to_teacher, 1.0)):
            linear.weight.copy_(factor * torch.eye(len(linear.weight)))
            linear.bias.zero_()
    loss = method.objective({name: term.total for name, term in method.terms(batch).items()})
    return loss, torch.autograd.grad(loss, batch.student.hidden)[0]


def test_a_teacher_that_is_the_student_teaches_nothing_and_its_shift_does() -> None:
    loss, gradient = _equal_models()
    assert abs(loss) < 1e-5
    assert gradient.abs().max() < 1e-5
    shifted, gradient = _equal_models(shift=1)
    assert shifted > 0.1
    assert gradient.abs().max() > 1e-2


def test_an_example_without_teacher_tokens_gives_cross_entropy_alone() -> None:
    method, batch = case(accuracy_mask=False)
    teacher = {f"teacher_{name}": getattr(batch.teacher, name)[:5] for name in ("hidden", "labels", "inputs")}
    fewer = changed(batch, **teacher, teacher_sizes=torch.tensor([5, 0, 0]))
    terms = method.terms(fewer)
    alone = method.terms(example(batch, 0))
    for name in ("teacher_to_student_cross_entropy", "student_space", "teacher_space", "teacher_to_student_accuracy"):
        torch.testing.assert_close(terms[name].total, alone[name].total, **TOLERANCE)
    assert terms["cross_entropy"].normalizer == 11
    gradients = torch.autograd.grad(_loss(method, fewer), _leaves(method, fewer))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_batch_without_tokens() -> None:
    method, batch = case()
    nothing = {
        f"{side}_{name}": getattr(getattr(batch, side), name)[:0] for side in SIZES for name in ("labels", "inputs")
    }
    hidden = {f"{side}_hidden": getattr(batch, side).hidden[:0] for side in SIZES}
    empty = changed(batch, **nothing, **hidden, **{f"{side}_sizes": torch.zeros(2, dtype=torch.long) for side in SIZES})
    assert all(term.total == term.normalizer == 0 for term in method.terms(empty).values())


def test_scaling_is_by_the_standard_deviation_of_each_example() -> None:
    values = torch.randn(9, 4, generator=torch.Generator().manual_seed(2)) * 3 + 1
    found = Layout(torch.tensor([6, 0, 3]), values.device).scaled(values)
    expected = torch.cat([values[:6] / values[:6].std(), values[6:] / values[6:].std()])
    torch.testing.assert_close(found, expected)
    constant = torch.full((2, 4), 5.0)
    torch.testing.assert_close(Layout(torch.tensor([2]), values.device).scaled(constant), constant)


def test_weights_lie_within_an_example_and_add_up_to_one() -> None:
    generator = torch.Generator().manual_seed(4)
    student, teacher = (
        Layout(torch.tensor([2, 3]), torch.device("cpu")),
        Layout(torch.tensor([4, 0]), torch.device("cpu")),
    )
    attention = CrossModelAttention.between(
        torch.randn(5, 8, generator=generator), torch.randn(4, 8, generator=generator), student, teacher
    )
    torch.testing.assert_close(attention.to_student(torch.ones(4, 1)), torch.tensor([1.0, 1, 0, 0, 0])[:, None])
    torch.testing.assert_close(attention.to_teacher(torch.ones(5, 1)), torch.ones(4, 1))


def test_an_unknown_or_narrower_embedding_is_an_error_that_says_what_to_do() -> None:
    method, batch = case()
    with pytest.raises(InputError, match="teacher: its input embedding is not known; fix: run the teacher live"):
        method.terms(changed(batch, teacher_embedding=None))
    with pytest.raises(InputError, match="student: its input embedding has 4 columns and its head 6"):
        method.terms(changed(batch, student_embedding=batch.student.embedding[:, :4]))


@pytest.mark.gpu
def test_terms_read_nothing_from_the_device() -> None:
    method, batch = case()
    assert_terms_stay_on_the_device(method, batch)

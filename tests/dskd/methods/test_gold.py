"""GOLD against a reference in loops and against the trainer's own values where it computes what it means to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dskd import methods
from dskd.errors import InputError
from dskd.losses.token_groups import groups_of
from dskd.modeling.lm_head import Head
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers import golden
from helpers.grouped_tokens import STUDENT, TEACHER, case, double, gradients, loss
from helpers.token_batches import changed, token_batch


def prepared(batch: Any, shared: SharedVocabulary, **options: Any) -> Any:
    method = methods.get("gold")(options)
    method.prepare(batch.student.head, batch.teacher.head, shared)
    return method


def _probabilities(head: Head, hidden: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.softmax(head.logits(hidden.double()) / temperature, -1)


def _merge(probabilities: torch.Tensor, labels: torch.Tensor, tokens: list[int], strategy: str) -> torch.Tensor:
    shown = tokens[-1] if strategy == "bayesian" else tokens[0]
    merged = probabilities[shown]
    for token in tokens:
        if token != shown:
            merged = merged * probabilities[token][labels[token]]
    return merged


def _js(p: torch.Tensor, q: torch.Tensor, beta: float, floor: float) -> torch.Tensor:
    """Of two numbers, in probability space, with the terms that a sum of less than one asks for."""
    p, q = p.clamp_min(floor), q.clamp_min(floor)
    if beta == 0.0:
        return p * torch.log(p / q) + q - p
    if beta == 1.0:
        return q * torch.log(q / p) + p - q
    m = beta * p + (1 - beta) * q
    return beta * (p * torch.log(p / m) + m - p) + (1 - beta) * (q * torch.log(q / m) + m - q)


def reference(batch: Any, shared: SharedVocabulary, method: Any) -> torch.Tensor:
    o = method.options
    q = _probabilities(double(batch.student.head), batch.student.hidden, o.student_temperature)
    p = _probabilities(double(batch.teacher.head), batch.teacher.hidden, o.teacher_temperature)
    ends = {int(batch.student.groups[end]) for end in batch.student.sizes.cumsum(0) - 1}
    matched_pairs = list(zip(shared.teacher_ids.tolist(), shared.student_ids.tolist(), strict=True))
    matched_pairs = matched_pairs if o.hybrid_loss else []
    others = [k for k in range(TEACHER) if k not in dict(matched_pairs)]
    student_others = [k for k in range(STUDENT) if k not in {pair[1] for pair in matched_pairs}]
    matched, unmatched, groups = torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double), 0
    for group in range(int(batch.student.groups.max()) + 1):
        students = [i for i, number in enumerate(batch.student.groups.tolist()) if number == group]
        teachers = [j for j, number in enumerate(batch.teacher.groups.tolist()) if number == group]
        if (o.skip_eos and group in ends) or (o.strict_pairs and (len(students), len(teachers)) != (1, 1)):
            continue
        groups += 1
        merged_q = _merge(q, batch.student.labels, students, o.token_merge_strategy)
        merged_p = _merge(p, batch.teacher.labels, teachers, o.token_merge_strategy)
        for teacher_id, student_id in matched_pairs:
            matched = matched + _js(merged_p[teacher_id], merged_q[student_id], o.js_beta, o.probability_floor)
        left, right = sorted(merged_p[others], reverse=True), sorted(merged_q[student_others], reverse=True)
        for k in range(max(len(left), len(right))):
            a = left[k] if k < len(left) else 0.0
            b = right[k] if k < len(right) else 0.0
            unmatched = unmatched + abs(a - b)
    distillation = unmatched / groups
    if o.hybrid_loss:
        share = len(matched_pairs) / TEACHER
        weights = (o.hybrid_matched_weight, o.hybrid_unmatched_weight)
        weights = (share, 1 - share) if weights[0] is None else weights
        distillation = weights[0] * matched / groups + weights[1] * unmatched / groups
    rows = double(batch.student.head).logits(batch.student.hidden.double(), padded=True)
    entropy = torch.nn.functional.cross_entropy(rows, batch.student.labels)
    return (1 - o.kd_rate) * entropy + o.kd_rate * distillation


@pytest.mark.reference("gold")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"token_merge_strategy": "observed", "skip_eos": False},
        {"kd_rate": 0.4, "student_temperature": 2.0, "teacher_temperature": 1.5},
        {"hybrid_loss": True, "js_beta": 0.3},
        {"hybrid_loss": True, "js_beta": 0.0, "token_merge_strategy": "observed"},
        {"hybrid_loss": True, "js_beta": 1.0, "skip_eos": False},
        {"hybrid_loss": True, "hybrid_matched_weight": 0.2, "hybrid_unmatched_weight": 1.3},
        {"hybrid_loss": True, "probability_floor": 0.01, "kd_rate": 0.8},
        {"hybrid_loss": True, "strict_pairs": True},
    ],
    ids=str,
)
def test_loss_and_gradients_equal_a_reference_in_loops(options: dict[str, Any]) -> None:
    batch, shared = case()
    method = prepared(batch, shared, **options)
    ours, slow = loss(method, batch), reference(batch, shared, method)
    torch.testing.assert_close(ours.double(), slow, rtol=1e-5, atol=1e-7)
    for found, expected in zip(gradients(ours, batch), gradients(slow, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hybrid", [False, True])
def test_a_batch_split_into_examples_adds_up_to_itself(hybrid: bool) -> None:
    whole, shared = case()
    method = prepared(whole, shared, hybrid_loss=hybrid, kd_rate=0.6)
    totals = method.counts(whole)
    terms = method.terms(whole)
    parts = [method.terms(case(examples=[k])[0]) for k in (2, 0, 1)]
    for name, term in terms.items():
        assert term.normalizer == totals[name]
        assert sum(part[name].normalizer for part in parts) == term.normalizer, name
        torch.testing.assert_close(sum(part[name].total for part in parts), term.total, rtol=1e-5, atol=1e-6)


MERGING = [
    {"token_merge_strategy": strategy, "hybrid_loss": hybrid, "js_beta": beta}
    for strategy in ("bayesian", "observed")
    for hybrid, beta in ((False, 0.5), (True, 0.0), (True, 0.5), (True, 1.0))
]


@pytest.mark.parametrize("options", MERGING, ids=str)
def test_a_teacher_that_is_the_student_teaches_nothing(options: dict[str, Any]) -> None:
    batch, shared = case(same=True)
    method = prepared(batch, shared, skip_eos=False, **options)
    terms = method.terms(batch)
    distillation = sum(terms[name].total for name in ("matched", "unmatched") if name in terms)
    assert abs(distillation.item()) < 1e-6
    for gradient in gradients(loss(method, batch), batch):
        assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("options", MERGING, ids=str)
def test_a_teacher_one_token_off_is_noticed(options: dict[str, Any]) -> None:
    batch, shared = case(same=True)
    method = prepared(batch, shared, skip_eos=False, **options)
    shifted = changed(batch, teacher_hidden=batch.teacher.hidden.roll(1, 0))
    assert loss(method, shifted) > 0.01
    assert gradients(loss(method, shifted), batch)[0].abs().max() > 1e-3


def test_a_batch_without_a_group_has_no_distillation() -> None:
    batch, shared = case(examples=[2])  # end tokens alone
    method = prepared(batch, shared)
    terms = method.terms(batch)
    assert terms["unmatched"].normalizer == 0
    assert terms["unmatched"].total == 0
    assert gradients(terms["unmatched"].total, batch)[0].abs().max() == 0


def test_a_too_improbable_group_is_not_rewarded() -> None:
    """Without the mass terms the divergence at β = 1 is negative for a student with too little probability."""
    from dskd.methods.gold import generalised_js_divergence

    p, q = torch.tensor([[0.5, 0.3]]).log(), torch.tensor([[0.1, 0.1]]).log()
    for beta in (0.0, 0.4, 1.0):
        assert generalised_js_divergence(p, q, beta, 1e-8) > 0.01
        assert generalised_js_divergence(p, p, beta, 1e-8).abs() < 1e-7


@pytest.mark.parametrize(
    "options",
    [
        {"hybrid_matched_weight": 0.5, "hybrid_loss": True},
        {"hybrid_matched_weight": 1.0, "hybrid_unmatched_weight": 0.0},
    ],
)
def test_weights_that_would_be_ignored_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="hybrid_matched_weight"):
        methods.get("gold")(options)


def _offset(config: dict[str, Any]) -> int:
    """How many rows before a label's place the trainer reads: its "observed" strategy reads the distribution of the next token."""
    return 1 if config["uld_token_merge_strategy"] == "bayesian" else 0


def _golden_batch(
    given: dict[str, torch.Tensor], config: dict[str, Any], sample: int, groups: dict[str, list[Any]]
) -> Any:
    """One sample of a golden case: its answer's tokens by label, the trainer's own groups, the end tokens in one of their own."""
    sides = []
    for side in ("student", "teacher"):
        labels = given[f"in/{side}_labels"][sample]
        places = (labels != -100).nonzero().squeeze(-1)
        numbers = torch.full((len(places),), -1)
        for number, tokens in enumerate(groups[side]):
            numbers[tokens] = number
        if numbers[-1] < 0:
            numbers[-1] = len(groups[side])  # the end token, which is then skipped
        hidden = given[f"in/{side}_hidden"][sample, places - _offset(config)]
        sides.append((hidden, labels[places], numbers, torch.tensor([len(places)])))
    student, teacher = sides
    student_head = Head(given["in/student_head"].clone().requires_grad_(), None, 1.0, 0.0, 420)
    teacher_head = Head(given["in/teacher_head"], None, 1.0, 0.0, 640)
    return token_batch(
        student_head,
        student[0].clone().requires_grad_(),
        student[1],
        teacher_head,
        teacher[0],
        teacher[1],
        student_groups=student[2],
        teacher_groups=teacher[2],
        student_sizes=student[3],
        teacher_sizes=teacher[3],
    )


@pytest.fixture(scope="module")
def shared_tokens() -> SharedVocabulary:
    """The trainer pairs tokens by their spelling, which is exact for two byte-level tokenizers; their ends differ by name."""
    from tokenizers import Tokenizer

    vocabularies = [
        Tokenizer.from_file(str(golden.SHARED / f"eta_{side}_tokenizer.json")).get_vocab()
        for side in ("teacher", "student")
    ]
    pairs = sorted((k, vocabularies[1][token]) for token, k in vocabularies[0].items() if token in vocabularies[1])
    ids = np.array(pairs, dtype=np.int64)
    return SharedVocabulary(ids[:, 0].copy(), ids[:, 1].copy(), np.full(640, -1), same=False)


GOLDEN = [c for c in golden.cases("gold_uld") if c["config"]["use_extended_uld"]]


@pytest.mark.parametrize("golden_case", GOLDEN, ids=lambda c: c["name"])
def test_the_trainers_own_values(golden_case: dict[str, Any], shared_tokens: SharedVocabulary) -> None:
    config = golden_case["config"]
    given = golden.tensors(golden_case)
    assert len(shared_tokens) == golden_case.get("matched_vocabulary", len(shared_tokens))
    beta = config["beta"]
    options = {
        "kd_rate": 0.5,  # at 1 cross entropy would take no gradient; the trainer's weights are applied below
        "student_temperature": config["uld_student_temperature"],
        "teacher_temperature": config["uld_teacher_temperature"],
        "skip_eos": config["uld_skip_student_eos"],
        "token_merge_strategy": config["uld_token_merge_strategy"],
        "hybrid_loss": config["uld_use_hybrid_loss"],
        "js_beta": beta,
        "hybrid_matched_weight": config["uld_hybrid_matched_weight"],
        "hybrid_unmatched_weight": config["uld_hybrid_unmatched_weight"],
    }
    total, hidden_gradient, head_gradient = 0.0, torch.zeros_like(given["in/student_hidden"]), 0.0
    labelled = int((given["in/student_labels"] != -100).sum())
    samples = len(golden_case["texts"])
    for sample in range(samples):
        batch = _golden_batch(given, config, sample, golden_case["groups"][sample])
        method = prepared(batch, shared_tokens, **options)
        terms, counts = method.terms(batch), method.counts(batch)
        means = {name: term.total / counts[name] for name, term in terms.items()}
        if config["uld_use_hybrid_loss"]:
            # The trainer leaves the mass out at the ends of β.
            if beta in (0.0, 1.0):
                means["matched"] = means["matched"] - (1 - 2 * beta) * _missing_mass(method, batch) / counts["matched"]
            for name in ("matched", "unmatched"):
                expected = golden_case["per_sample"][sample][name]
                assert means[name].item() == pytest.approx(expected, rel=1e-5)
        # Its mean is over samples, ours over the step's groups.
        value = config["uld_distillation_weight"] * method.distillation(means) / samples
        value = value + config["uld_crossentropy_weight"] * terms["cross_entropy"].total / labelled
        found = torch.autograd.grad(value, [batch.student.hidden, batch.student.head.weight])
        places = (given["in/student_labels"][sample] != -100).nonzero().squeeze(-1)
        hidden_gradient[sample, places - _offset(config)] += found[0]
        head_gradient = head_gradient + found[1]
        total += value.item()
    assert total == pytest.approx(given["value"].item(), rel=1e-5)
    for ours, name in ((hidden_gradient, "student_hidden"), (head_gradient, "student_head")):
        theirs = given[f"grad/{name}"]
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm(), name


def _missing_mass(method: Any, batch: Any) -> torch.Tensor:
    """Σ q̂ − Σ p̂ over the tokens that both have and the groups that count."""
    student, teacher = groups_of(batch)
    kept = method._kept(batch, student, teacher)
    floor = method.options.probability_floor
    masses = []
    for head, hidden, labels, groups, temperature, ids in (
        (
            batch.student.head,
            batch.student.hidden,
            batch.student.labels,
            student,
            method.options.student_temperature,
            method.matched_student_ids,
        ),
        (
            batch.teacher.head,
            batch.teacher.hidden,
            batch.teacher.labels,
            teacher,
            method.options.teacher_temperature,
            method.matched_teacher_ids,
        ),
    ):
        merged = method._merged(head.logits(hidden), labels, groups, temperature).exp().clamp_min(floor)
        masses.append((merged[:, ids].sum(-1) * kept).sum())
    return masses[0] - masses[1]


MERGED = [c for c in GOLDEN if c["name"] in ("gold/plain_extended_bayesian", "gold/plain_extended_observed")]


@pytest.mark.parametrize("golden_case", MERGED, ids=lambda c: c["name"])
def test_the_trainers_merged_distributions(golden_case: dict[str, Any], shared_tokens: SharedVocabulary) -> None:
    given = golden.tensors(golden_case)
    for sample, groups in enumerate(golden_case["groups"]):
        batch = _golden_batch(given, golden_case["config"], sample, groups)
        method = prepared(batch, shared_tokens, token_merge_strategy=golden_case["config"]["uld_token_merge_strategy"])
        student, teacher = groups_of(batch)
        for head, hidden, labels, side, name in (
            (batch.student.head, batch.student.hidden, batch.student.labels, student, "student"),
            (batch.teacher.head, batch.teacher.hidden, batch.teacher.labels, teacher, "teacher"),
        ):
            merged = method._merged(head.logits(hidden), labels, side, 1.0).exp()[: len(groups[name])]
            torch.testing.assert_close(merged, given[f"merged_{name}/{sample}"], rtol=2e-5, atol=1e-8)

"""X-Token against a reference in loops, in probability space and float64, and what must hold of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from dskd import methods
from dskd.errors import InputError
from dskd.losses.divergences import DIVERGENCES
from dskd.modeling.lm_head import Head
from dskd.tokenization.pieces import TokenizerPieces
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary
from dskd.tokenization.vocabulary_projection import project_vocabulary
from helpers.grouped_tokens import STUDENT, TEACHER, case, double, gradients, loss
from helpers.tiny_tokenizers import byte_level, sentencepiece
from helpers.token_batches import changed


def prepared(batch: Any, shared: SharedVocabulary, **options: Any) -> Any:
    method = methods.get("x-token")(options)
    method.prepare(batch.student.head, batch.teacher.head, shared)
    return method


def with_statistics(method: Any, batch: Any) -> Any:
    """The batch as one whole step."""
    if not method.needed:
        return batch
    with torch.no_grad():
        (found,) = method.precompute_step([batch], lambda sums: sums)
    return changed(batch, student_per_token_statistics=found)


def _split(data: bytes, tokens: Any) -> list[int]:
    """The longest token that fits, again and again."""
    found: list[int] = []
    while data:
        k = max((k for k, token in enumerate(tokens) if token and data.startswith(token)), key=lambda k: len(tokens[k]))
        k = min(other for other, token in enumerate(tokens) if token == tokens[k])
        found.append(k)
        data = data[len(tokens[k]) :]
    return found


def _shares(pieces: list[int]) -> list[tuple[int, float]]:
    weights = [0.9 * 0.1**k for k in range(len(pieces[:4]))]
    return [(piece, weight / sum(weights)) for piece, weight in zip(pieces, weights, strict=False)]


def reference_map(shared: SharedVocabulary, *, reverse_pass: bool) -> torch.Tensor:
    """W, dense, from its definition."""
    w = torch.zeros(STUDENT, TEACHER, dtype=torch.double)
    for k, token in enumerate(shared.student_tokens):
        for piece, share in _shares(_split(token, shared.teacher_tokens)) if token else []:
            w[k, piece] += share
    for v, token in enumerate(shared.teacher_tokens if reverse_pass else ()):
        for piece, share in _shares(_split(token, shared.student_tokens)) if token else []:
            w[piece, v] += share
    for v, k in zip(shared.teacher_ids.tolist(), shared.student_ids.tolist(), strict=True):
        w[k] = torch.eye(TEACHER, dtype=torch.double)[v]
    for row in w:
        best = sorted(range(TEACHER), key=lambda v, row=row: (-row[v].item(), v))[:4]
        row[[v for v in range(TEACHER) if v not in best]] = 0
        row /= row.sum() if row.sum() > 0 else 1
    return w


def _matched(w: torch.Tensor, shared: SharedVocabulary, least: float) -> list[tuple[int, int]]:
    """Pairs of a teacher's token and the student's token whose row has it on top."""
    twins = dict(zip(shared.student_ids.tolist(), shared.teacher_ids.tolist(), strict=True))
    best: dict[int, tuple[Any, int]] = {}
    for k in range(STUDENT):
        v = int(w[k].argmax())
        if w[k, v] >= least - 1e-9:
            rank = (-w[k, v].item(), twins.get(k) != v, k)
            best[v] = min(best.get(v, (rank, k)), (rank, k))
    return [(v, k) for v, (_, k) in best.items()]


def _generalised(p: torch.Tensor, q: torch.Tensor, reverse: bool) -> torch.Tensor:
    if reverse:
        p, q = q, p
    return p * torch.log(p / q) - p + q


def _group_distance(
    z: torch.Tensor, y: torch.Tensor, w: torch.Tensor, shared: SharedVocabulary, o: Any
) -> torch.Tensor:
    """Of one group with logits z [its tokens, student tokens] and y [the teacher's, teacher tokens], divided by τ."""
    reverse = o.divergence == "reverse_kl"
    total = torch.zeros((), dtype=torch.double)
    if o.form == "p_kl":
        kept = y.mean(0).topk(min(o.top_k, TEACHER)).indices.tolist()
        log_p = {v: sum(torch.log_softmax(row[kept], -1)[n] for row in y) / len(y) for n, v in enumerate(kept)}
        m = {v: sum((torch.softmax(row, -1) @ w[:, v]) for row in z) / len(z) for v in kept}
        mass = sum(m.values())
        for v in kept:
            p, q = log_p[v].exp(), m[v] / (mass + o.probability_floor)
            floored = q + o.probability_floor
            total = total + (
                floored * (torch.log(floored) - log_p[v]) + p - q
                if reverse
                else p * (log_p[v] - torch.log(floored)) - p + q
            )
        return total
    q = torch.stack([torch.log_softmax(row, -1) for row in z]).mean(0).exp()
    p = torch.stack([torch.log_softmax(row, -1) for row in y]).mean(0).exp()
    pairs = _matched(w, shared, 1.0 if o.form == "gold" else o.matched_weight)
    for v, k in pairs:
        total = total + _generalised(p[v], q[k], reverse)
    left = sorted((p[v] for v in range(TEACHER) if v not in dict(pairs)), reverse=True)
    right = sorted((q[k] for k in range(STUDENT) if k not in {pair[1] for pair in pairs}), reverse=True)
    ranks = min(o.ranked_top_k, (min if o.cut_ranks else max)(len(left), len(right)))
    for n in range(ranks):
        total = total + abs((left[n] if n < len(left) else 0.0) - (right[n] if n < len(right) else 0.0))
    return total


def reference(batch: Any, shared: SharedVocabulary, o: Any) -> torch.Tensor:
    w = reference_map(shared, reverse_pass=o.reverse_pass)
    head = double(batch.student.head)
    z = head.logits(batch.student.hidden.double()) / o.temperature
    y = double(batch.teacher.head).logits(batch.teacher.hidden.double()) / o.temperature
    distance, groups = torch.zeros((), dtype=torch.double), 0
    for group in range(int(batch.student.groups.max()) + 1):
        students = [i for i, number in enumerate(batch.student.groups.tolist()) if number == group]
        teachers = [j for j, number in enumerate(batch.teacher.groups.tolist()) if number == group]
        if o.strict_pairs and (len(students), len(teachers)) != (1, 1):
            continue
        groups += 1
        distance = distance + _group_distance(z[students], y[teachers], w, shared, o)
    distance = o.temperature**2 * distance / groups
    rows = head.logits(batch.student.hidden.double(), padded=True)
    entropy = torch.nn.functional.cross_entropy(rows, batch.student.labels)
    if o.dynamic_scaling:
        return (entropy / distance).abs().detach() * distance + entropy
    return o.distillation_weight * distance + o.cross_entropy_weight * entropy


@pytest.mark.reference("x-token")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 7, "distillation_weight": 0.7, "cross_entropy_weight": 0.4},
        {"divergence": "reverse_kl", "temperature": 2.0, "reverse_pass": True},
        {"dynamic_scaling": True, "top_k": 11},
        {"probability_floor": 1e-3, "strict_pairs": True},
        {"form": "gold"},
        {"form": "gold", "cut_ranks": True, "strict_pairs": True},
        {"form": "gold", "ranked_top_k": 3, "divergence": "reverse_kl"},
        {"form": "h_kl", "temperature": 1.5, "dynamic_scaling": True},
        {"form": "h_kl", "matched_weight": 0.95, "ranked_top_k": 2},
    ],
    ids=str,
)
def test_loss_and_gradients_equal_a_reference_in_loops(options: dict[str, Any]) -> None:
    batch, shared = case()
    method = prepared(batch, shared, **options)
    ours, slow = loss(method, with_statistics(method, batch)), reference(batch, shared, method.options)
    torch.testing.assert_close(ours.double(), slow, rtol=1e-5, atol=1e-7)
    for found, expected in zip(gradients(ours, batch), gradients(slow, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


FORMS = [{"form": form, "dynamic_scaling": dynamic} for form in ("p_kl", "gold", "h_kl") for dynamic in (False, True)]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_batch_split_into_examples_adds_up_to_itself(options: dict[str, Any]) -> None:
    whole, shared = case()
    method = prepared(whole, shared, top_k=9, **options)
    parts = [case(examples=[k])[0] for k in (2, 0, 1)]
    if method.needed:
        with torch.no_grad():
            found = method.precompute_step(parts, lambda sums: sums)
        parts = [changed(part, student_per_token_statistics=own) for part, own in zip(parts, found, strict=True)]
        whole = with_statistics(method, whole)
    totals, terms = method.counts(whole), method.terms(whole)
    split = [method.terms(part) for part in parts]
    for name, term in terms.items():
        assert term.normalizer == totals[name]
        assert sum(part[name].normalizer for part in split) == term.normalizer, name
        torch.testing.assert_close(sum(part[name].total for part in split), term.total, rtol=1e-5, atol=1e-6)


ITSELF = [
    {"form": form, "divergence": divergence, "temperature": temperature}
    for form in ("p_kl", "gold", "h_kl")
    for divergence, temperature in (("forward_kl", 1.0), ("reverse_kl", 2.0))
]


@pytest.mark.parametrize("options", ITSELF, ids=str)
@pytest.mark.parametrize("shift", [0, 1])
def test_a_teacher_that_is_the_student_teaches_nothing_unless_a_token_off(options: dict[str, Any], shift: int) -> None:
    """One vocabulary, so groups of one token and W the identity."""
    batch, shared = case(same=True)
    numbers = torch.arange(len(batch.student.labels))
    batch = changed(
        batch, student_groups=numbers, teacher_groups=numbers, teacher_hidden=batch.teacher.hidden.roll(shift, 0)
    )
    method = prepared(batch, shared, cross_entropy_weight=0.0, **options)
    value = loss(method, batch)
    largest = max(gradient.abs().max().item() for gradient in gradients(value, batch))
    assert (value.item() > 0.01 and largest > 1e-3) if shift else (abs(value.item()) < 1e-6 and largest < 1e-6)


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl"])
def test_with_one_vocabulary_it_is_the_divergence_of_the_two_over_k(divergence: str) -> None:
    batch, shared = case(same=True)
    generator = torch.Generator().manual_seed(3)
    numbers = torch.arange(len(batch.student.labels))
    states = batch.teacher.hidden + torch.randn(batch.teacher.hidden.shape, generator=generator)
    batch = changed(batch, student_groups=numbers, teacher_groups=numbers, teacher_hidden=states)
    method = prepared(batch, shared, cross_entropy_weight=0.0, divergence=divergence, top_k=6, temperature=1.3)
    teacher_logits = batch.teacher.head.logits(states)
    kept = teacher_logits.topk(6).indices
    student_logits = batch.student.head.logits(batch.student.hidden)
    expected = DIVERGENCES[divergence](teacher_logits.gather(-1, kept), student_logits.gather(-1, kept), 1.3)
    plain = 1.3**2 * expected.mean()
    ours = loss(method, batch)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    for found, wanted in zip(gradients(ours, batch), gradients(plain, batch), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_a_batch_without_a_group_has_no_distillation(options: dict[str, Any]) -> None:
    batch, shared = case()
    none = [torch.full_like(side.groups, -1) for side in (batch.student, batch.teacher)]
    batch = changed(batch, student_groups=none[0], teacher_groups=none[1])
    method = prepared(batch, shared, **options)
    batch = with_statistics(method, batch)
    terms = method.terms(batch)
    value = method.objective({name: term.total / term.normalizer.clamp_min(1.0) for name, term in terms.items()})
    entropy = methods.get("sft")().terms(batch)["cross_entropy"]
    plain = (1.0 if method.needed else 0.1) * entropy.total / entropy.normalizer
    torch.testing.assert_close(value, plain)
    for found, expected in zip(gradients(value, batch), gradients(plain, batch), strict=True):
        torch.testing.assert_close(found, expected)


def test_tokens_whose_bytes_are_not_known_are_an_error() -> None:
    batch, _ = case()
    shared = SharedVocabulary(np.arange(3), np.arange(3), np.full(TEACHER, -1), same=False)
    with pytest.raises(InputError, match=r"methods\.x-token: needs the bytes.*fix: make the shared vocabulary"):
        prepared(batch, shared)


def test_no_step_is_read_ahead_with_static_weights() -> None:
    assert not methods.get("x-token")().needed
    assert methods.get("x-token")({"dynamic_scaling": True}).needed


@pytest.mark.parametrize("reverse_pass", [False, True])
def test_tokens_are_split_as_the_tokenizers_do(reverse_pass: bool) -> None:
    tokenizers = {"student": sentencepiece(450), "teacher": byte_level(400)}
    student, teacher = (Vocabulary.from_tokenizer(tokenizers[side]) for side in ("student", "teacher"))
    shared = share_vocabulary(teacher, student)
    heads = [Head(torch.zeros(side.size + 2, 3), None, 1.0, 0.0, side.size) for side in (student, teacher)]
    method = methods.get("x-token")({"reverse_pass": reverse_pass})
    method.use_tokenizers(tokenizers["student"], tokenizers["teacher"])
    method.prepare(*heads, shared)
    pieces = [
        TokenizerPieces(tokenizers[name], side.tokens) for name, side in (("teacher", teacher), ("student", student))
    ]
    expected = project_vocabulary(shared, *(pieces if reverse_pass else pieces[:1]))
    for found, wanted in (
        (method.projection.student_ids, expected.student_ids),
        (method.projection.teacher_ids, expected.teacher_ids),
    ):
        assert found.tolist() == wanted.tolist()
    assert method.projection.weights.tolist() == expected.weights.tolist()
    assert len(expected.weights) > student.size - 10  # some have several

"""Prefix distillation against a reference in loops and float64, and what must hold of it."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from dskd import methods
from dskd.modeling.lm_head import Head
from dskd.tokenization.alignment import byte_groups
from dskd.tokenization.pieces import LongestMatch
from dskd.tokenization.vocabulary import SharedVocabulary
from helpers.grouped_tokens import case, double, gradients, loss
from helpers.token_batches import token_batch

TEACHER_TOKENS = (b"a", b"b", b"c", b"ab", b"abc", b"ca", b"bca", b"cc", b"aab", None)
STUDENT_TOKENS = (None, b"c", b"b", b"a", b"bc", b"abca", b"cab", b"aa", b"abcab", b"cc")
END = {"teacher": 9, "student": 0}


def split(data: bytes, tokens: tuple[bytes | None, ...], draw: random.Random) -> list[int]:
    """Some way to write bytes in tokens, not always the longest ones."""
    found: list[int] = []
    while data:
        fitting = [k for k, token in enumerate(tokens) if token and data.startswith(token)]
        best = max(fitting, key=lambda k: len(tokens[k] or b""))
        found.append(best if draw.random() < 0.7 else draw.choice(fitting))
        data = data[len(tokens[found[-1]] or b"") :]
    return found


def spans(ids: list[int], tokens: tuple[bytes | None, ...]) -> np.ndarray:
    ends = np.cumsum([len(tokens[k] or b"") for k in ids])
    return np.stack([np.concatenate([[0], ends[:-1]]), ends], -1)


def vocabularies() -> SharedVocabulary:
    pairs = [(k, STUDENT_TOKENS.index(token)) for k, token in enumerate(TEACHER_TOKENS) if token in STUDENT_TOKENS]
    of = np.full(len(TEACHER_TOKENS), -1)
    for k, own in pairs:
        of[k] = own  # the end of a text, which has no bytes, is among them
    ids = np.array(sorted(pairs))
    return SharedVocabulary(ids[:, 0], ids[:, 1], of, False, TEACHER_TOKENS, STUDENT_TOKENS)


def written(examples: int = 6, seed: int = 0) -> tuple[Any, SharedVocabulary]:
    """A batch of texts in the tokens of both, each with an end."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    sides: dict[str, list[list[int]]] = {"student": [], "teacher": []}
    groups: dict[str, list[int]] = {"student": [], "teacher": []}
    first = 0
    for _ in range(examples):
        text = bytes(draw.choice(b"abc") for _ in range(draw.randint(4, 14)))
        own, other = split(text, STUDENT_TOKENS, draw), split(text, TEACHER_TOKENS, draw)
        found = byte_groups(spans(other, TEACHER_TOKENS), spans(own, STUDENT_TOKENS))
        last = int(found[0].max()) + 1
        for side, ids, numbers in (("student", own, found[1]), ("teacher", other, found[0])):
            sides[side].append([*ids, END[side]])
            groups[side] += [*(numbers + first).tolist(), first + last]
        first += last + 1

    def labels(side: str) -> torch.Tensor:
        return torch.tensor([k for ids in sides[side] for k in ids])

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    head = Head(normal(len(STUDENT_TOKENS) + 2, 5).requires_grad_(), None, 1.0, 0.0, len(STUDENT_TOKENS))
    teacher = Head(normal(len(TEACHER_TOKENS) + 1, 6), None, 1.0, 0.0, len(TEACHER_TOKENS))
    own, other = labels("student"), labels("teacher")
    batch = token_batch(
        head,
        normal(len(own), 5).requires_grad_(),
        own,
        teacher,
        normal(len(other), 6),
        other,
        student_sizes=torch.tensor([len(ids) for ids in sides["student"]]),
        teacher_sizes=torch.tensor([len(ids) for ids in sides["teacher"]]),
        student_groups=torch.tensor(groups["student"]),
        teacher_groups=torch.tensor(groups["teacher"]),
    )
    return batch, vocabularies()


def method(shared: SharedVocabulary, batch: Any, **options: Any) -> Any:
    made = methods.get("prefix-kd")(options)
    made.prepare(batch.student.head, batch.teacher.head, shared)
    return made


def first_token(rest: bytes) -> int:
    return LongestMatch(STUDENT_TOKENS)([rest])[0][0]


def target(p: torch.Tensor, batch: Any, shared: SharedVocabulary, i: int) -> tuple[torch.Tensor, float] | None:
    """(t, ρ) of student token i by its definition; None where it begins in no token of the teacher."""
    group = int(batch.student.groups[i])
    own = [k for k, number in enumerate(batch.student.groups.tolist()) if number == group]
    other = [k for k, number in enumerate(batch.teacher.groups.tolist()) if number == group]
    labels, theirs = batch.student.labels.tolist(), batch.teacher.labels.tolist()
    begins = sum(len(STUDENT_TOKENS[labels[k]] or b"") for k in own if k < i)
    label, before = labels[i], 0
    for j in other:
        token = TEACHER_TOKENS[theirs[j]]
        if token is None or before + len(token) > begins:
            break
        before += len(token)
    token = TEACHER_TOKENS[theirs[j]]
    cut = begins - before if token else 0
    prefix = (token or b"")[:cut]
    mass = torch.zeros(len(STUDENT_TOKENS), dtype=torch.double)
    known = total = 0.0
    share = 1.0
    if token:
        rest = (STUDENT_TOKENS[label] or b"")[len(token) - cut :]
        at = j + 1
        while rest:
            there = TEACHER_TOKENS[theirs[at]] or b""
            if len(there) < len(rest):
                share *= float(p[at][theirs[at]])
            else:
                share *= sum(float(p[at][w]) for w, t in enumerate(TEACHER_TOKENS) if t and t.startswith(rest))
            rest, at = rest[len(there) :], at + 1
    for w, bytes_of in enumerate(TEACHER_TOKENS):
        if bytes_of is None:
            stands_for = int(shared.student_id_of[w]) if cut == 0 else -1
            counts = cut == 0
        else:
            counts = bytes_of.startswith(prefix)
            longer = len(bytes_of) > cut
            stands_for = first_token(bytes_of[cut:]) if counts and longer else -1
            if cut == 0 and shared.student_id_of[w] >= 0:
                stands_for = int(shared.student_id_of[w])
        if not counts:
            continue
        total += float(p[j][w])
        if w == theirs[j]:
            mass[label] += p[j][w] * share
            known += float(p[j][w]) * (1.0 if stands_for >= 0 else share)
            if stands_for >= 0:
                mass[stands_for] += p[j][w] * (1 - share)
        elif stands_for >= 0:
            mass[stands_for] += p[j][w]
            known += float(p[j][w])
    return mass / known, known / total


def reference(batch: Any, shared: SharedVocabulary, o: Any) -> torch.Tensor:
    z = double(batch.student.head).logits(batch.student.hidden.double())
    p = double(batch.teacher.head).logits(batch.teacher.hidden.double()).softmax(-1)
    distance = torch.zeros((), dtype=torch.double)
    for i in range(len(batch.student.labels)):
        t, certainty = target(p, batch, shared, i)
        t = t ** (1 / o.temperature)
        t = t / t.sum()
        log_q = (z[i] / o.temperature).log_softmax(-1)
        weight = certainty if o.weighted else 1.0
        distance = distance + weight * sum(t[y] * (math.log(t[y]) - log_q[y]) for y in range(len(t)) if t[y] > 0)
    rows = double(batch.student.head).logits(batch.student.hidden.double(), padded=True)
    entropy = torch.nn.functional.cross_entropy(rows, batch.student.labels)
    return (1 - o.kd_rate) * entropy + o.kd_rate * distance / len(batch.student.labels)


@pytest.mark.reference("prefix-kd")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [{}, {"kd_rate": 0.3, "temperature": 1.7}, {"weighted": False}], ids=str)
def test_loss_and_gradients_equal_a_reference_in_loops(options: dict[str, Any], seed: int) -> None:
    batch, shared = written(seed=seed)
    found = method(shared, batch, **options)
    ours, slow = loss(found, batch), reference(batch, shared, found.options)
    terms = found.terms(batch)
    assert found.covered(batch, terms) == len(batch.student.labels)  # every token is taught
    torch.testing.assert_close(ours.double(), slow, rtol=1e-5, atol=1e-7)
    for mine, expected in zip(gradients(ours, batch), gradients(slow, batch), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"temperature": 2.0, "divergence": "reverse_kl", "kd_rate": 0.4}], ids=str)
def test_with_one_vocabulary_it_is_vanilla_distillation(options: dict[str, Any]) -> None:
    batch, shared = case(same=True)
    batch.student.pairs = batch.teacher.pairs = torch.arange(len(batch.student.labels))
    ours = loss(method(shared, batch, **options), batch)
    given = {"kd_rate": 0.9, "temperature": 1.0, **options}
    vanilla = methods.get("kd")(given)
    vanilla.prepare(batch.student.head, batch.teacher.head, shared)
    torch.testing.assert_close(ours, loss(vanilla, batch))

"""What the probe makes of answers: each function one check, from figures of `figures.py` and limits with their reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from dskd.modeling.lm_head import Head
from dskd.teachers.engines.base import Answers
from dskd.teachers.options import TeacherOutputKind
from dskd.teachers.probe.figures import (
    computed_in,
    difference,
    negative_log_likelihood,
    not_finite,
    perplexity,
    text_difference,
)
from dskd.teachers.probe.reference import ReferenceAnswer
from dskd.teachers.probe.report import ProbeCheck
from dskd.teachers.questions import Question

# By the coarsest dtype that takes part, what two answers of one model to one text may differ by (`figures.difference`).
# LIMITS_MEASURED
LIMITS: Mapping[TeacherOutputKind, Mapping[str, float]] = {
    "hidden_states": {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1},
    # What a server computes in stands in none of these answers, so that the coarsest is allowed.
    "top_k": {"unknown": 0.2},
    "text_log_probabilities": {"unknown": 0.1},
}
_MEASURES = {
    "hidden_states": "of their norm",
    "top_k": "of their probability",
    "text_log_probabilities": "nats a token",
}
# A model that knows nothing gives a text of V tokens a perplexity of V; random weights give up to e^(D / 5000) times as much (initialised
# at 0.02: 1.2 times at a hidden size of 640, 5 times at 8,192). Gemma 3 270M gives the plain texts ln V - 7.7 nats a token, its head with
# permuted rows ln V + 13, with permuted columns, which stand for another model's, ln V + 8.5.
_BEYOND_CHANCE = 2.0  # nats
# States that are normalised have the length 1 to the rounding of bfloat16; those that enter a head have about the square root of D.
_UNIT = 0.02
_RAW_STATES = """--pooler-config '{"task": "token_embed", "use_activation": false}'"""
_HEAD_NATS = 0.05  # what rounding a head to bfloat16 costs is less; another head costs nats


def finite(address: str, answers: Sequence[Answers], dtype: str) -> ProbeCheck:
    """Whether all numbers are."""
    wrong, numbers = sum(map(not_finite, answers)), sum(value.numel() for answer in answers for value in answer.values())
    if not wrong:
        return ProbeCheck(name="finite numbers", result="passed", found=f"all of {numbers:,}", address=address)
    fix = "ask for bfloat16 (dtype), which holds larger numbers" if dtype == "float16" else "look at the server's log"
    found = f"{wrong:,} of {numbers:,} numbers are not finite in {dtype}"
    return ProbeCheck(name="finite numbers", result="refused", found=found, fix=fix, address=address)


def hidden_size(address: str, answer: Answers, head: Head) -> ProbeCheck:
    """Whether the head takes these states."""
    given, expected = answer["hidden"].shape[1], head.weight.shape[1]
    if given == expected:
        return ProbeCheck(name="hidden size", result="passed", found=f"{given:,}", address=address)
    found = f"the server's states have {given:,} numbers a token, and the teacher's head takes {expected:,}"
    fix = "give the head of the model that is served (head), or the address of the teacher's server"
    return ProbeCheck(name="hidden size", result="refused", found=found, fix=fix, address=address)


def raw_states(address: str, answers: Sequence[Answers]) -> ProbeCheck:
    """Whether the states are as they enter a head; an embedding server normalises them."""
    lengths = [length for answer in answers for length in answer["hidden"].double().norm(dim=-1).tolist()]
    farthest = max(abs(length - 1) for length in lengths)
    if farthest > _UNIT:
        found = f"lengths from {min(lengths):.3g} to {max(lengths):.3g}"
        return ProbeCheck(name="raw states", result="passed", found=found, address=address)
    found = f"all {len(lengths):,} states have the length 1: the server normalises them"
    return ProbeCheck(
        name="raw states", result="refused", found=found, fix=f"start the server with {_RAW_STATES}", address=address
    )


def probabilities(address: str, answers: Sequence[Answers], size: int) -> ProbeCheck:
    """Whether log-probabilities are some: of tokens that there are, and of no more than 1 together."""
    ids = [answer["ids"] for answer in answers if "ids" in answer]
    if any(int(values.min()) < 0 or int(values.max()) >= size for values in ids):
        largest = max(int(values.max()) for values in ids)
        found = f"token {largest:,} is among the most probable, and the teacher has {size:,} tokens"
        fix = "give the tokenizer of the model that is served"
        return ProbeCheck(name="probabilities", result="refused", found=found, fix=fix, address=address)
    scores = [answer["log_probabilities"].double() for answer in answers]
    sums = max(float((score.exp().sum(-1) if score.ndim == 2 else score.exp()).max()) for score in scores)
    if sums <= 1 + 1e-3:
        found = f"at most {sums:.4f} together" if ids else f"at most {sums:.4f}"
        return ProbeCheck(name="probabilities", result="passed", found=found, address=address, value=sums, limit=1.001)
    found = f"the probabilities at a token add up to {sums:.4f}, and to no more than 1 where they are probabilities"
    fix = "start the server without --logprobs-mode, so that it gives log-probabilities"
    return ProbeCheck(
        name="probabilities", result="refused", found=found, fix=fix, address=address, value=sums, limit=1.001
    )


def likely_text(
    address: str, known: Mapping[str, float], size: int, *, settled: bool, fix: str
) -> ProbeCheck:
    """Whether the teacher finds text likely. known: by what they are, texts' negative log-likelihoods in nats a token.

    settled: Whether a local copy says more, so that this is a figure alone. One kind of text is enough: a model for one purpose may
    find prose most unlikely.
    """
    nats, limit = min(known.values()), math.log(size) + _BEYOND_CHANCE
    figures = ", ".join(f"{what} {perplexity(value)}" for what, value in known.items())
    found = f"perplexity: {figures}; by chance {size:,}"
    if nats <= limit or settled:
        return ProbeCheck(name="likely text", result="passed", found=found, address=address, value=nats, limit=limit)
    found += ". A model that knows nothing does better: the states, the head and the tokenizer do not belong together"
    return ProbeCheck(
        name="likely text", result="refused", found=found, fix=fix, address=address, value=nats, limit=limit
    )


def head_of_copy(head: Head, reference: Sequence[ReferenceAnswer], questions: Sequence[Question], where: Path) -> ProbeCheck:
    """Whether the head makes of the local copy's states what the copy itself makes of them."""
    apart = 0.0
    for known, question in zip(reference, questions, strict=True):
        labels = question.labels
        logits = head.logits(known.hidden[: len(labels)].to(head.weight.device)).float().log_softmax(-1).cpu()
        ours = logits[range(len(labels)), labels]
        apart = max(apart, text_difference(ours, known.log_probabilities[: len(labels)]))
    figures = {"value": apart, "limit": _HEAD_NATS}
    found = f"log-probabilities {apart:.2g} nats a token from those of {where}"
    if apart <= _HEAD_NATS:
        return ProbeCheck(name="head", result="passed", found=found, **figures)
    fix = "give the head of the same model (head)"
    return ProbeCheck(name="head", result="refused", found=f"{found}, and at most {_HEAD_NATS} where it is its head", fix=fix, **figures)


def same_answers(
    name: str, address: str | None, pairs: Sequence[tuple[str, Answers, Answers]], kind: TeacherOutputKind, dtype: str, fix: str
) -> ProbeCheck:
    """Whether pairs of answers, each to one text, are alike up to rounding; the text is what messages show of it.

    dtype: On the wire.
    """
    apart = {text: difference(given, expected) for text, given, expected in pairs}
    text = max(apart, key=lambda each: apart[each] if math.isfinite(apart[each]) else math.inf)
    value, of = apart[text], "unknown"
    if kind == "hidden_states":
        of = _coarser(dtype, *(computed_in(given["hidden"]) for _, given, _ in pairs))
    limit = LIMITS[kind][of]
    computed = f" in {of}" if of != "unknown" else ""
    found = f"apart by {value:.2g} {_MEASURES[kind]} at most (limit{computed} {limit:g})"
    if value <= limit:
        return ProbeCheck(name=name, result="passed", found=found, address=address, value=value, limit=limit)
    found = f"answers are apart by {value:.2g} {_MEASURES[kind]}, and by at most {limit:g}{computed} where they are alike: {text}"
    return ProbeCheck(
        name=name, result="refused", found=found, fix=fix, address=address, value=value if math.isfinite(value) else None, limit=limit
    )


def replica_pairs(answers: Mapping[str, Sequence[Answers]], texts: Sequence[str]) -> list[tuple[str, Answers, Answers]]:
    """Answers of each two addresses to the same texts."""
    return [
        (f"{first} and {second} to {text}", given, expected)
        for first, second in combinations(answers, 2)
        for text, given, expected in zip(texts, answers[first], answers[second], strict=True)
    ]


def mean_nats(head: Head, answers: Sequence[Answers], questions: Sequence[Question]) -> float:
    """The negative log-likelihood of texts, in nats a token."""
    tokens = [len(question.labels) for question in questions]
    nats = [
        negative_log_likelihood(head, answer["hidden"], question.labels)
        for answer, question in zip(answers, questions, strict=True)
    ]
    return sum(a * b for a, b in zip(tokens, nats, strict=True)) / sum(tokens)


_ORDER = ("float32", "float16", "bfloat16")


def _coarser(*dtypes: str) -> str:
    return max(dtypes, key=_ORDER.index)

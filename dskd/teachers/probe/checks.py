"""What the probe makes of answers: each function one check, from figures of `figures.py` and limits with their reasons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dskd.modeling.lm_head import Head
from dskd.teachers.engines.base import Answers
from dskd.teachers.options import TeacherOutputKind
from dskd.teachers.probe.figures import difference, not_finite, perplexity, text_difference
from dskd.teachers.probe.reference import ReferenceAnswer
from dskd.teachers.probe.report import ProbeCheck
from dskd.teachers.questions import Question
from dskd.teachers.rounding import STATES, coarsest, computed_in

Pair = tuple[str, Answers, Answers]  # a text as messages show it, and two answers to it

# What a server computes in stands in no log-probability, so that the coarsest is allowed: in bfloat16 Gemma's of a text differed by 0.17
# nats a token.
_LOG_PROBABILITIES = {"top_k": 0.3, "text_log_probabilities": 0.35}
_MEASURES = {"hidden_states": "of the norm", "top_k": "of the probability", "text_log_probabilities": "nats a token"}
# By chance a text has ln V nats a token (V tokens). Random weights give D / 5,000 more, for a head of D numbers a token that was
# initialised at 0.02: its logits have a variance of D / 2,500. Measured on the plain texts, as distances from ln V: Gemma 3 270M -7.7, its
# head with permuted rows +13, with permuted columns (which stand for another model's) +8.5; Llamas of 32 numbers a token that were trained
# for 40 and 120 steps -2.1 and -2.9, with permuted rows +2.7 and +4.5, with each other's head +1.1 and +0.8; random weights 0.
_BEYOND_CHANCE, _NUMBERS_A_NAT = 0.5, 5000
_LARGEST = 8192  # numbers a token of a head that is not known
# States that are normalised have the length 1 to the rounding of bfloat16; those that enter a head have about the square root of D.
_UNIT = 0.02
_RAW_STATES = """--pooler-config '{"task": "token_embed", "use_activation": false}'"""
_HEAD_NATS = 0.05  # what rounding a head to bfloat16 costs is less; another head costs nats


def finite(address: str, answers: Sequence[Answers], dtype: str) -> ProbeCheck:
    """Whether all numbers are."""
    wrong, numbers = (
        sum(map(not_finite, answers)),
        sum(value.numel() for answer in answers for value in answer.values()),
    )
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
    largest = max((int(values.max()) for values in ids), default=-1)
    without = sum(int((values[:, 0] < 0).sum()) for values in ids)
    if largest >= size or without:
        found = f"token {largest:,} is among the most probable, and the teacher has {size:,} tokens"
        if without:
            found = f"none of the most probable tokens is one of the teacher's {size:,}, at {without:,} positions"
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


def likely_text(address: str, nats: Mapping[str, float], size: int, hidden: int | None, *, settled: bool) -> ProbeCheck:
    """Whether the teacher finds text likely.

    Args:
        address: Of the server.
        nats: By what they are, the negative log-likelihood of texts in nats a token. One of them has to be likely: a model for one
            purpose may find prose most unlikely.
        size: Tokens of the teacher.
        hidden: Numbers a token of the head that made them of states; None where the server gave log-probabilities.
        settled: Whether a local copy says more, so that this is a figure alone.
    """
    value, limit = min(nats.values()), math.log(size) + _BEYOND_CHANCE + (hidden or _LARGEST) / _NUMBERS_A_NAT
    found = (
        f"perplexity {', '.join(f'{perplexity(each)} of {what}' for what, each in nats.items())}; by chance {size:,}"
    )
    figures: dict[str, Any] = {"address": address, "value": value, "limit": limit}
    if value <= limit or settled:
        return ProbeCheck(name="likely text", result="passed", found=found, **figures)
    what, fix = "the tokenizer does not belong to the model", "give the tokenizer of the model that is served"
    if hidden is not None:
        what, fix = "head and states are not of one model", "give the head of the model that is served (head)"
    return ProbeCheck(name="likely text", result="refused", found=f"{found}, so {what}", fix=fix, **figures)


def head_of_copy(head: Head, reference: Sequence[ReferenceAnswer], questions: Sequence[Question]) -> ProbeCheck:
    """Whether the head makes of a local copy's states what the copy itself makes of them."""
    apart = 0.0
    for known, question in zip(reference, questions, strict=True):
        labels = question.labels
        scores = head.logits(known.hidden[: len(labels)].to(head.weight.device)).float().log_softmax(-1).cpu()
        ours = scores[range(len(labels)), labels]
        apart = max(apart, text_difference(ours, known.log_probabilities[: len(labels)]))
    found = (
        f"log-probabilities of the texts are {apart:.2g} nats from the local copy's, and the limit is {_HEAD_NATS:g}"
    )
    passed = apart <= _HEAD_NATS
    return ProbeCheck(
        name="head",
        result="passed" if passed else "refused",
        found=found,
        fix="" if passed else "give the head of the local copy (head), or the copy of the model that is served",
        value=apart,
        limit=_HEAD_NATS,
    )


@dataclass(frozen=True)
class Comparison:
    """Compares answers.

    Attributes:
        kind: Of the answers.
        dtype: Of hidden states on the wire.
    """

    kind: TeacherOutputKind
    dtype: str

    def same(self, name: str, pairs: Iterable[Pair], fix: str, address: str | None = None) -> ProbeCheck:
        """Whether two answers to a text are alike up to rounding, for each of these pairs."""
        compared = list(pairs)
        apart = {text: difference(given, expected) for text, given, expected in compared}
        text = max(apart, key=apart.__getitem__)
        if self.kind == "hidden_states":
            states = (given["hidden"] for _, given, _ in compared)
            dtype = coarsest((self.dtype, *map(computed_in, states)))
            limit, at = STATES[dtype], f" in {dtype}"
        else:
            limit, at = _LOG_PROBABILITIES[self.kind], ""
        passed = apart[text] <= limit
        found = f"{apart[text]:.2g} {_MEASURES[self.kind]} apart, and the limit{at} is {limit:g}"
        return ProbeCheck(
            name=name,
            result="passed" if passed else "refused",
            found=found if passed else f"{found} ({text})",
            fix="" if passed else fix,
            address=address,
            value=apart[text],
            limit=limit,
        )


def replica_pairs(rounds: Sequence[Mapping[str, Sequence[Answers]]], texts: Sequence[str]) -> Iterator[Pair]:
    """The answers of each two addresses to one text, in each round of asking."""
    for answers in rounds:
        for first, second in combinations(answers, 2):
            for text, given, expected in zip(texts, answers[first], answers[second], strict=True):
                yield f"{first} and {second}, {text}", given, expected

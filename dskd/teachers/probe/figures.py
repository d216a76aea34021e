"""The figures that the probe compares, from answers alone, and the limits that they are compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dskd.modeling.lm_head import Head
from dskd.teachers.engines.base import Answers
from dskd.teachers.questions import Question


def split(answers: Answers, questions: Sequence[Question]) -> list[Answers]:
    """The answers to each of these questions."""
    sizes = [len(question.positions) for question in questions]
    parts = {name: value.split(sizes) for name, value in answers.items()}
    return [{name: part[k] for name, part in parts.items()} for k in range(len(questions))]


def not_finite(answers: Answers) -> int:
    """How many of the numbers are infinite or none. A log-probability of -inf counts where there is a token: none has no probability."""
    absent = answers["ids"] < 0 if "ids" in answers else torch.zeros(1, dtype=torch.bool)
    return sum(int((~value.isfinite() & ~absent).sum()) for value in answers.values() if value.is_floating_point())


def states_difference(given: Tensor, expected: Tensor) -> float:
    """The norm of what two answers [positions, hidden] to a text differ by, as a share of what is expected."""
    expected = expected.double()
    return ((given.double() - expected).norm() / expected.norm().clamp_min(torch.finfo(torch.float32).tiny)).item()


def top_k_difference(given: Answers, expected: Answers) -> float:
    """What two sets of most probable tokens differ by, as a share of their probability: 0 for the same, 2 for nothing in common.

    `expected` may hold more tokens than `given`; those that are not in both count as a whole.
    """
    ids, other = given["ids"].long(), expected["ids"].long()
    probability, other_probability = (
        given["log_probabilities"].double().exp(),
        expected["log_probabilities"].double().exp(),
    )
    k = ids.shape[1]
    same = ids[:, :, None] == other[:, None, :]  # [positions, k, others]
    differ = (probability - (same * other_probability[:, None, :]).sum(-1)).abs().sum()
    missing = (other_probability[:, :k] * ~same[:, :, :k].any(1)).sum()
    return ((differ + missing) / probability.sum()).item()


def text_difference(given: Tensor, expected: Tensor) -> float:
    """The mean distance of two answers [positions] in nats."""
    return (given.double() - expected.double()).abs().mean().item()


def difference(given: Answers, expected: Answers) -> float:
    """How far two answers to one text are apart; by kind, one of the three above."""
    if "hidden" in given:
        return states_difference(given["hidden"], expected["hidden"])
    if "ids" in given:
        return top_k_difference(given, expected)
    return text_difference(given["log_probabilities"], expected["log_probabilities"])


def mean_nats(head: Head | None, answers: Sequence[Answers], questions: Sequence[Question]) -> float:
    """The negative log-likelihood of texts in nats a token: under what the head makes of their states, or as it was answered."""
    nats = []
    for answer, question in zip(answers, questions, strict=True):
        if head is None:
            nats.append(-answer["log_probabilities"].double())
            continue
        logits = head.logits(answer["hidden"].to(head.weight.device)).float()
        labels = torch.tensor(question.labels, device=logits.device)
        nats.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none").double().cpu())
    return torch.cat(nats).mean().item()


def perplexity(nats: float) -> str:
    """`exp(nats)` as a message shows it."""
    return f"{math.exp(nats):,.0f}" if nats < 20 else f"e^{nats:.0f}"

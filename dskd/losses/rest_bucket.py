"""Distributions over some tokens and, as one outcome, the rest of the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor


def with_rest_bucket(logits: Tensor, ids: Tensor, temperature: float) -> Tensor:
    """Log-probabilities [tokens, ids + 1] of the tokens `ids` [tokens, ids] and, as one outcome, of all others (at least tiny)."""
    scaled = logits.float() / temperature
    kept = scaled.gather(-1, ids)
    whole = scaled.logsumexp(-1, keepdim=True)
    if ids.shape[-1] == logits.shape[-1]:
        others = torch.full_like(whole, torch.finfo(torch.float32).tiny).log()
    else:
        others = scaled.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True) - whole
    return torch.cat([kept - whole, others], -1)


def with_rest_bucket_of_top_k(
    ids: Tensor, log_probabilities: Tensor, student_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log p and log q [tokens, k + 1] over the teacher's k best tokens and, as one, all others.

    Merging outcomes never raises an f-divergence (all but adaptive_kl), so this gives a lower bound.
    """
    best = log_probabilities.float()
    if ids.shape[-1] == student_logits.shape[-1]:  # nothing is left over
        return best, (student_logits.float() / temperature).log_softmax(-1).gather(-1, ids)
    tail = (1.0 - best.exp().sum(-1, keepdim=True)).clamp_min(torch.finfo(torch.float32).tiny).log()
    scaled = student_logits.float() / temperature
    log_q = scaled.gather(-1, ids)
    rest = scaled.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    whole = torch.cat([log_q, rest], -1)
    return torch.cat([best, tail], -1), whole - whole.logsumexp(-1, keepdim=True)

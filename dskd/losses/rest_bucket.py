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
    """log p and log q [tokens, k + 1] over the tokens of which the teacher's probability is known and, as one outcome, all others.

    That outcome has whatever the known ones leave of 1. Merging outcomes never raises an f-divergence (all but adaptive_kl), so this
    gives a lower bound.

    Args:
        ids: [tokens, k], the student's ids of these tokens, no id twice in a row; -1 for a place without a token.
        log_probabilities: [tokens, k], the teacher's; not looked at where the id is -1.
        student_logits: [tokens, vocabulary].
        temperature: Divides the student's logits.
    """
    absent = ids < 0
    scaled = student_logits.float() / temperature
    size = scaled.shape[-1]
    known = torch.zeros(len(ids), size + 1, dtype=torch.bool, device=ids.device)
    known = known.scatter_(-1, ids.masked_fill(absent, size), True)[:, :size]
    best = log_probabilities.float().masked_fill(absent, -torch.inf)
    log_q = scaled.gather(-1, ids.clamp_min(0)).masked_fill(absent, -torch.inf)
    tail = 1.0 - best.exp().sum(-1, keepdim=True)
    rest = scaled.masked_fill(known, -torch.inf).logsumexp(-1, keepdim=True)
    if ids.shape[-1] >= size:
        # Where every token is known, what the sum lacks is rounding, and there is no other outcome that could have it.
        all_known = known.all(-1, keepdim=True)
        tail = tail.masked_fill(all_known, 0.0)
    log_p = torch.cat([best, tail.clamp_min(torch.finfo(torch.float32).tiny).log()], -1)
    whole = torch.cat([log_q, rest], -1)
    return log_p, whole - whole.logsumexp(-1, keepdim=True)

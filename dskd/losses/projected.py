"""Distances between a teacher's distribution and a student's that is carried into the teacher's vocabulary by a sparse matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SparseMap:
    """W [student tokens, teacher tokens] by its entries: student_ids, teacher_ids and weights, all [entries]."""

    student_ids: Tensor
    teacher_ids: Tensor
    weights: Tensor
    teacher_size: int

    def project(self, probabilities: Tensor) -> Tensor:
        """q W [rows, teacher tokens] of q [rows, student tokens]; of [rows, entries] there are few tensors."""
        rows = len(probabilities)
        # Not an index_add along the columns, which a CPU does one column at a time.
        values = probabilities.gather(-1, self.student_ids.expand(rows, -1)) * self.weights
        found = probabilities.new_zeros(rows, self.teacher_size)
        return found.scatter_add(-1, self.teacher_ids.expand(rows, -1), values)


def projected_divergence(
    log_p: Tensor, probabilities: Tensor, projection: SparseMap, *, floor: float, reverse: bool = False
) -> Tensor:
    """D(p ‖ m) over the tokens K of which p is known, with m = q W divided by its sum over K; D(m ‖ p) with `reverse` [groups].

    D(a ‖ b) = Σ a log(a / b) − a + b: p does not add up to one where it is a mean of logarithms, yet D is never negative but for
    rounding.

    Args:
        log_p: [groups, teacher tokens], minus infinity outside K.
        probabilities: q [groups, student tokens].
        projection: W.
        floor: Added to m inside the logarithm, because m is zero for a token that no student token stands for; and to the sum over K.
        reverse: Which of the two divergences.
    """
    inside = log_p > -torch.inf
    log_p = log_p.masked_fill(~inside, 0.0)
    p = torch.where(inside, log_p.exp(), 0.0)
    projected = torch.where(inside, projection.project(probabilities), 0.0)
    m = projected / (projected.sum(-1, keepdim=True) + floor)
    log_m = (m + floor).log()
    gap = (m + floor) * (log_m - log_p) + p - m if reverse else p * (log_p - log_m) - p + m
    return torch.where(inside, gap, 0.0).sum(-1)


def generalised_kl(log_p: Tensor, log_q: Tensor, *, reverse: bool = False) -> Tensor:
    """Σ p log(p / q) − p + q, or Σ q log(q / p) − q + p with `reverse` [groups], of what need not add up to one."""
    p, q = log_p.exp(), log_q.exp()
    return (q * (log_q - log_p) - q + p if reverse else p * (log_p - log_q) - p + q).sum(-1)

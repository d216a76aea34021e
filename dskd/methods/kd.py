"""Vanilla knowledge distillation of next-token distributions (Hinton et al., arXiv 1503.02531) for one vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    DistillationMethod,
    DistillationOptions,
    Requirements,
    cross_entropy,
    predictions_of_teacher,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor


@register
class KnowledgeDistillation(DistillationMethod):
    """L = (1 − α) L_CE + α · mean over labelled tokens of D(p || q) (docs/method.md), over real tokens only."""

    name = "kd"
    title = "knowledge distillation"
    paper = "arXiv 1503.02531"
    requires = Requirements(vocabulary="same", teacher_outputs=("hidden_states", "top_k"))
    Options = DistillationOptions

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        temperature = self.options.temperature
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(batch.student.at_pairs(logits))
        if batch.teacher.top_k_ids is not None:
            ids = batch.teacher.top_k_ids[batch.teacher.pairs]
            log_p, log_q = coarsened(
                ids, batch.teacher.top_k_log_probabilities[batch.teacher.pairs], student_logits, temperature
            )
            distance = self.options.distance(temperature=1.0)(log_p, log_q)
        else:
            with torch.no_grad():
                teacher_logits = batch.teacher.head.logits(batch.teacher.hidden[batch.teacher.pairs])
                predictions_of_teacher(batch, teacher_logits)
            distance = self.options.distance()(teacher_logits, student_logits)
        return {
            "cross_entropy": cross_entropy(batch, logits),
            "distillation": LossTerm(distance.sum(), self.counts(batch)["distillation"]),
        }


def coarsened(
    ids: Tensor, log_probabilities: Tensor, student_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """log p and log q [tokens, k + 1] over the teacher's k best tokens and, as one, all others.

    ids, log_probabilities [tokens, k] are the teacher's at `temperature`; student_logits [tokens, vocabulary]. Merging outcomes
    never raises an f-divergence (all here but adaptive_kl), so this is a lower bound of that over the whole vocabulary.
    """
    import torch

    best = log_probabilities.float()
    if ids.shape[-1] == student_logits.shape[-1]:  # nothing is left over
        return best, (student_logits.float() / temperature).log_softmax(-1).gather(-1, ids)
    tail = (1.0 - best.exp().sum(-1, keepdim=True)).clamp_min(torch.finfo(torch.float32).tiny).log()
    scaled = student_logits.float() / temperature
    log_q = scaled.gather(-1, ids)
    rest = scaled.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)
    whole = torch.cat([log_q, rest], -1)
    return torch.cat([best, tail], -1), whole - whole.logsumexp(-1, keepdim=True)

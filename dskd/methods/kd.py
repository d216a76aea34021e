"""Vanilla knowledge distillation of next-token distributions (Hinton et al., arXiv 1503.02531) for one vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dskd.methods.base import (
    DistillationOptions,
    LabelledTokens,
    Method,
    Term,
    cross_entropy,
    labelled_count,
    predictions_of_teacher,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor


@register
class KnowledgeDistillation(Method):
    """L = (1 − α) L_CE + α · mean over labelled tokens of D(p || q) (docs/method.md), over real tokens only."""

    name = "kd"
    title = "knowledge distillation"
    paper = "arXiv 1503.02531"
    vocabulary = "same"
    needs_teacher = True
    signals = ("hidden_states", "top_k")
    Options = DistillationOptions

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        import torch

        temperature = self.options.temperature
        logits = batch.student_head.logits(batch.student_hidden, padded=True)
        student_logits = batch.student_head.without_padding(batch.at_pairs(logits))
        if batch.teacher_top_k_ids is not None and batch.teacher_top_k_log_probabilities is not None:
            ids = batch.teacher_top_k_ids[batch.teacher_pairs]
            log_p, log_q = coarsened(
                ids, batch.teacher_top_k_log_probabilities[batch.teacher_pairs], student_logits, temperature
            )
            distance = self.options.distance(temperature=1.0)(log_p, log_q)
        else:
            assert batch.teacher_head is not None
            assert batch.teacher_hidden is not None
            with torch.no_grad():
                teacher_logits = batch.teacher_head.logits(batch.teacher_hidden[batch.teacher_pairs])
                predictions_of_teacher(batch, teacher_logits)
            distance = self.options.distance()(teacher_logits, student_logits)
        return {
            "cross_entropy": cross_entropy(batch, logits),
            "distillation": Term(distance.sum(), self.counts(batch)["distillation"]),
        }

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        assert batch.student_pairs is not None
        labelled = labelled_count(batch)
        return {"cross_entropy": labelled, "distillation": labelled.new_tensor(float(len(batch.student_pairs)))}

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        return (1 - rate) * means["cross_entropy"] + rate * means["distillation"]


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

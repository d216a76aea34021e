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
    Options = DistillationOptions

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        import torch

        from dskd.divergences import DIVERGENCES

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        with torch.no_grad():
            teacher_logits = batch.teacher_head.logits(batch.teacher_hidden[batch.teacher_pairs])
        logits = batch.student_head.logits(batch.student_hidden, padded=True)
        student_logits = logits[batch.student_pairs, : batch.student_head.size]
        distance = DIVERGENCES[self.options.divergence](teacher_logits, student_logits, self.options.temperature)
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

"""Vanilla knowledge distillation of next-token distributions (Hinton et al., arXiv 1503.02531) for one vocabulary."""

from __future__ import annotations

from typing import ClassVar

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    DistillationMethod,
    DistillationOptions,
    Requirements,
    logits_of_teacher,
    predictions_of_teacher,
    register,
    top_k_of_teacher,
)
from dskd.methods.space import Choice, Log, Space, Uniform


@register
class KnowledgeDistillation(DistillationMethod):
    """L = (1 − α) L_CE + α · mean over labelled tokens of D(p || q) (docs/method.md), over real tokens only."""

    name = "kd"
    title = "knowledge distillation"
    paper = "arXiv 1503.02531"
    requires = Requirements(vocabulary="same", teacher_outputs=("hidden_states", "top_k"))
    Options = DistillationOptions
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 4.0),
        "divergence": Choice("forward_kl", "reverse_kl", "js_divergence"),
    }

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        temperature = self.options.temperature
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(batch.student.at_pairs(logits))
        if batch.teacher.top_k_ids is not None:
            log_p, log_q = losses.with_rest_bucket_of_top_k(*top_k_of_teacher(batch), student_logits, temperature)
            distance = self.options.distance(temperature=1.0)(log_p, log_q)
        else:
            teacher_logits = logits_of_teacher(batch)
            predictions_of_teacher(batch, teacher_logits)
            distance = self.options.distance()(teacher_logits, student_logits)
            del teacher_logits  # before the cross entropy makes its own tensor of that size
        return {
            "cross_entropy": self.cross_entropy(batch, logits),
            "distillation": LossTerm(distance.sum(), self.counts(batch)["distillation"]),
        }

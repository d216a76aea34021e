"""Dual-space knowledge distillation, version 1, for one vocabulary (arXiv 2406.17328): trained affine projectors, gold labels.

Notation of docs/method.md: h_i, H_i are hidden states entering the heads W_s, W_t of student and teacher; P and Q the affine
projectors to the student's and to the teacher's space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from dskd.methods.base import (
    DistillationOptions,
    DivergenceName,
    LabelledTokens,
    Method,
    Term,
    cross_entropy,
    labelled_count,
    register,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dskd.heads import Head
    from dskd.projectors import AffineProjectors
    from dskd.vocabulary import SharedVocabulary


class DualSpaceV1Options(DistillationOptions):
    """Options of dual-space distillation, version 1."""

    teacher_space_divergence: DivergenceName | None = Field(
        None, description="in the teacher's space; by default that of the student's (the published code: forward_kl)"
    )


@register
class DualSpaceV1(Method):
    """L = (1 − α) L_CE + α (L_CE^{t→s} + L_KD^{stu} + L_KD^{tea}) (docs/method.md), all over the student's labelled tokens."""

    name = "dskd-v1"
    title = "dual-space distillation, version 1"
    paper = "arXiv 2406.17328"
    vocabulary = "same"
    needs_teacher = True
    Options = DualSpaceV1Options
    projectors: AffineProjectors

    def prepare(self, student_head: Head, teacher_head: Head | None, shared: SharedVocabulary | None) -> nn.Module:
        from dskd.projectors import AffineProjectors

        assert teacher_head is not None
        self.projectors = AffineProjectors(student_head, teacher_head)
        return self.projectors

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        import torch

        from dskd.cross_entropy import cross_entropy_sum
        from dskd.divergences import DIVERGENCES

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        temperature = self.options.temperature
        hidden = batch.teacher_hidden[batch.teacher_pairs]
        labels = batch.at_pairs(batch.student_labels)

        # Teacher space. W_t is frozen, so the gradient reaches Q and the student's hidden states, not its head.
        with torch.no_grad():
            teacher_logits = batch.teacher_head.logits(hidden)
        mapped_logits = batch.teacher_head.detach().logits(
            self.projectors.to_teacher(batch.at_pairs(batch.student_hidden))
        )
        divergence = DIVERGENCES[self.options.teacher_space_divergence or self.options.divergence]
        teacher_space = divergence(teacher_logits, mapped_logits, temperature).sum()
        del teacher_logits, mapped_logits

        # Student space. The head is stopped, so the cross entropy trains P alone; the target is stopped, so D trains the student.
        projected_logits = batch.student_head.detach().logits(self.projectors.to_student(hidden))
        projector_loss = cross_entropy_sum(projected_logits, labels)
        projected_logits = projected_logits.detach()
        logits = batch.student_head.logits(batch.student_hidden, padded=True)
        student_logits = batch.student_head.without_padding(batch.at_pairs(logits))
        student_space = DIVERGENCES[self.options.divergence](projected_logits, student_logits, temperature).sum()

        count = labelled_count(batch)
        return {
            "cross_entropy": cross_entropy(batch, logits),
            "teacher_to_student_cross_entropy": Term(projector_loss, count),
            "student_space": Term(student_space, count),
            "teacher_space": Term(teacher_space, count),
            "teacher_to_student_accuracy": Term((projected_logits.argmax(-1) == labels).sum().float(), count),
        }

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        count = labelled_count(batch)
        return dict.fromkeys(
            (
                "cross_entropy",
                "teacher_to_student_cross_entropy",
                "student_space",
                "teacher_space",
                "teacher_to_student_accuracy",
            ),
            count,
        )

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        distillation = means["teacher_to_student_cross_entropy"] + means["student_space"] + means["teacher_space"]
        return (1 - rate) * means["cross_entropy"] + rate * distillation

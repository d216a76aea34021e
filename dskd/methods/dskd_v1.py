"""Dual-space knowledge distillation, version 1, for one vocabulary (arXiv 2406.17328): trained affine projectors, gold labels.

Notation of docs/method.md: h_i, H_i are hidden states entering the heads W_s, W_t of student and teacher; P and Q the affine
projectors to the student's and to the teacher's space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import AliasChoices, Field

from dskd import losses, modeling
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    DistillationMethod,
    DistillationOptions,
    DivergenceName,
    Requirements,
    cross_entropy,
    labelled_count,
    predictions_of_teacher,
    register,
)
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn


DistillIn = Literal["both", "student", "teacher"]
_TERMS = {"student": ("teacher_to_student_cross_entropy", "student_space"), "teacher": ("teacher_space",)}


def terms_of(distill_in: DistillIn) -> tuple[str, ...]:
    """The distillation terms in these spaces."""
    return tuple(name for space, names in _TERMS.items() if distill_in in ("both", space) for name in names)


def sum_of(means: dict[str, Tensor], names: Sequence[str]) -> Tensor:
    """The sum of the means with these names."""
    total = means[names[0]]
    for name in names[1:]:
        total = total + means[name]
    return total


class DualSpaceV1Options(DistillationOptions):
    """Options of DSKD, version 1."""

    distill_in: DistillIn = Field(
        "both",
        validation_alias=AliasChoices("distill_in", "spaces"),
        serialization_alias="spaces",
        description="the hidden spaces to distil in; student and teacher are the paper's ablations",
    )
    teacher_space_divergence: DivergenceName | None = Field(
        None, description="in the teacher's space; by default that of the student's (the published code: forward_kl)"
    )


class DualSpaceV1Distillation(DistillationMethod):
    """What version 1 is for one vocabulary and for two: every term over the number of the student's labelled tokens."""

    paper = "arXiv 2406.17328"
    Options: ClassVar[type[DualSpaceV1Options]] = DualSpaceV1Options
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 4.0),
        "divergence": Choice("forward_kl", "reverse_kl", "js_divergence"),
        "distill_in": Choice("both", "student", "teacher"),
    }
    projectors: modeling.AffineProjectors

    def _without_unused(self) -> nn.Module:
        """The projectors; one that no term reaches takes no gradient."""
        distill_in = self.options.distill_in
        self.projectors.teacher_to_student.requires_grad_(distill_in != "teacher")
        self.projectors.student_to_teacher.requires_grad_(distill_in != "student")
        return self.projectors

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        distill_in = self.options.distill_in
        reported = () if distill_in == "teacher" else ("teacher_to_student_accuracy",)
        return dict.fromkeys(("cross_entropy", *terms_of(distill_in), *reported), labelled_count(batch))

    def distillation(self, means: dict[str, Tensor]) -> Tensor:
        return sum_of(means, terms_of(self.options.distill_in))


@register
class DualSpaceV1(DualSpaceV1Distillation):
    """L = (1 − α) L_CE + α (L_CE^{t→s} + L_KD^{stu} + L_KD^{tea}) (docs/method.md), all over the student's labelled tokens."""

    name = "dskd-v1"
    title = "DSKD, version 1"
    requires = Requirements(vocabulary="same", projectors=True)

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> nn.Module:

        self.projectors = modeling.AffineProjectors(student_head, teacher_head)
        return self._without_unused()

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        hidden = batch.teacher.hidden[batch.teacher.pairs]
        sums = {}
        if self.options.distill_in != "student":
            sums["teacher_space"] = self._in_teacher_space(batch, hidden)
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        if self.options.distill_in != "teacher":
            sums |= self._in_student_space(batch, hidden, logits)
        count = labelled_count(batch)
        return {"cross_entropy": cross_entropy(batch, logits)} | {name: LossTerm(sums[name], count) for name in sums}

    def _in_teacher_space(self, batch: TokenBatch, hidden: Tensor) -> Tensor:
        """W_t is frozen, so the gradient reaches Q and the student's hidden states, not its head."""
        import torch

        with torch.no_grad():
            teacher_logits = batch.teacher.head.logits(hidden)
            predictions_of_teacher(batch, teacher_logits)
        mapped_logits = batch.teacher.head.detach().logits(
            self.projectors.to_teacher(batch.student.at_pairs(batch.student.hidden))
        )
        distance = self.options.distance(self.options.teacher_space_divergence)
        return distance(teacher_logits, mapped_logits).sum()

    def _in_student_space(self, batch: TokenBatch, hidden: Tensor, logits: Tensor) -> dict[str, Tensor]:
        """The head is stopped, so the cross entropy trains P alone; the target is stopped, so D trains the student."""

        labels = batch.student.at_pairs(batch.student.labels)
        projected_logits = batch.student.head.detach().logits(self.projectors.to_student(hidden))
        projector_loss = losses.cross_entropy_sum(projected_logits, labels)
        projected_logits = projected_logits.detach()
        student_logits = batch.student.head.without_padding(batch.student.at_pairs(logits))
        return {
            "teacher_to_student_cross_entropy": projector_loss,
            "student_space": self.options.distance()(projected_logits, student_logits).sum(),
            "teacher_to_student_accuracy": (losses.argmax_of_rows(projected_logits) == labels).sum().float(),
        }

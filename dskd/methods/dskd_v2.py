"""Dual-space knowledge distillation, version 2, for one vocabulary and, with exact token alignment, for two (arXiv 2504.11426).

Notation of docs/method.md: h_i, H_j are hidden states entering the heads W_s, W_t of student and teacher; P, Q the projectors; 𝒜
the aligned pairs (i, j) whose teacher prediction t̂_j = argmax W_t H_j stands for a student token φ(t̂_j). With one vocabulary 𝒜 is
every labelled token and φ the identity, so one piece of code serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

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
    from torch import Tensor, nn

    from dskd.heads import Head
    from dskd.projectors import DualSpaceProjectors
    from dskd.vocabulary import SharedVocabulary


class DualSpaceOptions(DistillationOptions):
    """Options of dual-space distillation."""

    agreement_mask: bool = Field(
        True,
        description="distil in the student's space only where the projected teacher predicts what the teacher predicts",
    )


class DualSpaceDistillation(Method):
    """L = (1 − α) L_CE + α (L_CE^{t→s} + L_KD^{stu} + L_KD^{tea}) (docs/method.md).

    The published code divides the masked term by a count of the micro-batch; here every count is of the whole step.
    """

    paper = "arXiv 2504.11426"
    needs_teacher = True
    Options = DualSpaceOptions
    projectors: DualSpaceProjectors
    student_id_of: Tensor

    def prepare(self, student_head: Head, teacher_head: Head | None, shared: SharedVocabulary | None) -> nn.Module:
        import torch

        from dskd.projectors import DualSpaceProjectors

        assert teacher_head is not None
        assert shared is not None
        self.projectors = DualSpaceProjectors(student_head, teacher_head, shared)
        self.student_id_of = torch.from_numpy(shared.student_id_of).to(student_head.weight.device)
        return self.projectors

    def begin_step(self, student_head: Head) -> None:
        self.projectors.follow(student_head)

    def _targets(self, batch: LabelledTokens, teacher_logits: Tensor) -> tuple[Tensor, Tensor]:
        """(which pairs have a student token for the teacher's prediction [pairs], those tokens φ(t̂) [kept])."""
        targets = self.student_id_of[teacher_logits.argmax(-1)]
        known = targets >= 0
        return known, targets[known]

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        import torch

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        with torch.no_grad():
            hidden = batch.teacher_hidden[batch.teacher_pairs]
            known, targets = self._targets(batch, batch.teacher_head.logits(hidden))
            agree = batch.student_head.logits(self.projectors.to_student(hidden[known])).argmax(-1) == targets
            return self._counts(batch, len(known), targets, agree)

    def _counts(self, batch: LabelledTokens, pairs: int, targets: Tensor, agree: Tensor) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        aligned = labelled.new_tensor(float(len(targets)))
        return {
            "cross_entropy": labelled,
            "teacher_to_student_cross_entropy": aligned,
            "student_space": agree.sum().float() if self.options.agreement_mask else aligned,
            "teacher_space": aligned,
            "agreement": aligned,
            "aligned_share": labelled,
            "mapped_share": aligned.new_tensor(float(pairs)),
        }

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        import torch
        from torch.nn import functional

        from dskd.divergences import DIVERGENCES

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        assert batch.teacher_pairs is not None
        assert batch.student_pairs is not None
        divergence = DIVERGENCES[self.options.divergence]
        temperature = self.options.temperature
        hidden = batch.teacher_hidden[batch.teacher_pairs]
        with torch.no_grad():
            teacher_logits = batch.teacher_head.logits(hidden)
            known, targets = self._targets(batch, teacher_logits)
            if not bool(known.all()):
                hidden, teacher_logits = hidden[known], teacher_logits[known]
        student_tokens = batch.student_pairs[known]
        logits = batch.student_head.logits(batch.student_hidden, padded=True)

        # Student space. The head is stopped, so the cross entropy trains P alone; the target is stopped, so D trains the student.
        projected_logits = batch.student_head.detach().logits(self.projectors.to_student(hidden))
        projector_loss = functional.cross_entropy(projected_logits.float(), targets, reduction="sum")
        projected_logits = projected_logits.detach()
        agree = projected_logits.argmax(-1) == targets
        chosen = agree if self.options.agreement_mask else torch.ones_like(agree)
        student_logits = logits[student_tokens[chosen], : batch.student_head.size]
        student_space = divergence(projected_logits[chosen], student_logits, temperature).sum()

        # Teacher space. Q is derived and W_t frozen, so the gradient reaches the student's hidden states and not its head.
        mapped_logits = batch.teacher_head.detach().logits(
            self.projectors.to_teacher(batch.student_hidden[student_tokens])
        )
        teacher_space = divergence(teacher_logits, mapped_logits, temperature).sum()

        counts = self._counts(batch, len(known), targets, agree)
        sums = {
            "teacher_to_student_cross_entropy": projector_loss,
            "student_space": student_space,
            "teacher_space": teacher_space,
            "agreement": agree.sum().float(),
            "aligned_share": counts["mapped_share"],
            "mapped_share": counts["teacher_space"],
        }
        terms = {name: Term(total, counts[name]) for name, total in sums.items()}
        return {"cross_entropy": cross_entropy(batch, logits), **terms}

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        distillation = means["teacher_to_student_cross_entropy"] + means["student_space"] + means["teacher_space"]
        return (1 - rate) * means["cross_entropy"] + rate * distillation


@register
class DualSpaceV2(DualSpaceDistillation):
    """For a teacher and a student with one vocabulary."""

    name = "dskd-v2"
    title = "dual-space distillation, version 2"
    vocabulary = "same"


@register
class DualSpaceV2ExactTokenAlignment(DualSpaceDistillation):
    """For any two vocabularies; with one vocabulary it equals dskd-v2."""

    name = "dskd-v2-eta"
    title = "dual-space distillation, version 2, exact token alignment"
    vocabulary = "any"

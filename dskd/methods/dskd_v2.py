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
    first_terms = frozenset({"teacher_to_student_cross_entropy", "teacher_space"})
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

    def _targets(self, batch: LabelledTokens, teacher_logits: Tensor | None) -> Tensor:
        """φ(t̂) [pairs], −1 where no student token stands for the teacher's prediction; logits where t̂ is not known already."""
        if batch.teacher_predictions is not None:
            return self.student_id_of[batch.teacher_predictions[batch.teacher_pairs]]
        assert teacher_logits is not None
        return self.student_id_of[teacher_logits.argmax(-1)]

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        import torch

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        assert batch.teacher_pairs is not None
        with torch.no_grad():
            hidden = batch.teacher_hidden[batch.teacher_pairs]
            known = batch.teacher_predictions is not None
            targets = self._targets(batch, None if known else batch.teacher_head.logits(hidden))
            if self.options.agreement_mask:
                agree = batch.student_head.logits(self.projectors.to_student(hidden)).argmax(-1) == targets
            else:
                agree = targets >= 0
            return self._counts(batch, targets, agree)

    def _counts(self, batch: LabelledTokens, targets: Tensor, agree: Tensor) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        aligned = (targets >= 0).sum().to(labelled.dtype)
        return {
            "cross_entropy": labelled,
            "teacher_to_student_cross_entropy": aligned,
            "student_space": agree.sum().to(labelled.dtype) if self.options.agreement_mask else aligned,
            "teacher_space": aligned,
            "agreement": aligned,
            "aligned_share": labelled,
            "mapped_share": labelled.new_full((), float(len(targets))),
        }

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        first, projected_logits = self._from_teacher(batch)
        second = self._from_student(batch, projected_logits)
        return {name: Term(second.get(name, term.sum), term.count) for name, term in first.items()}

    def first_pass(self, batch: LabelledTokens) -> dict[str, Term]:
        terms, batch.large_notes["projected_logits"] = self._from_teacher(batch)
        return terms

    def second_pass(self, batch: LabelledTokens) -> dict[str, Tensor]:
        import torch

        assert batch.teacher_hidden is not None
        projected_logits = batch.large_notes.pop("projected_logits", None)
        if projected_logits is None:
            with torch.no_grad():
                hidden = batch.teacher_hidden[batch.teacher_pairs]
                projected_logits = batch.student_head.detach().logits(self.projectors.to_student(hidden))
        return self._from_student(batch, projected_logits)

    def _from_teacher(self, batch: LabelledTokens) -> tuple[dict[str, Term], Tensor]:
        """(terms, those through the student's head still zero; the projected logits [pairs, vocabulary], detached)."""
        import torch

        from dskd.cross_entropy import cross_entropy_sum
        from dskd.divergences import DIVERGENCES

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        assert batch.teacher_pairs is not None
        hidden = batch.teacher_hidden[batch.teacher_pairs]
        with torch.no_grad():
            teacher_logits = batch.teacher_head.logits(hidden)
            targets = self._targets(batch, teacher_logits)
            known = targets >= 0  # positions without a target are masked: picking them out would read from the device

        # Teacher space. Q is derived and W_t frozen, so the gradient reaches the student's hidden states and not its head.
        mapped_logits = batch.teacher_head.detach().logits(
            self.projectors.to_teacher(batch.at_pairs(batch.student_hidden))
        )
        divergence = DIVERGENCES[self.options.divergence]
        teacher_space = _sum_where(known, divergence(teacher_logits, mapped_logits, self.options.temperature))
        del teacher_logits, mapped_logits

        # The head is stopped, so the cross entropy trains P alone.
        projected_logits = batch.student_head.detach().logits(self.projectors.to_student(hidden))
        projector_loss = cross_entropy_sum(projected_logits, targets)
        projected_logits = projected_logits.detach()
        agree = projected_logits.argmax(-1) == targets

        counts = self._counts(batch, targets, agree)
        batch.notes["chosen"] = agree if self.options.agreement_mask else known
        zero = torch.zeros_like(counts["cross_entropy"])
        sums = {
            "cross_entropy": zero,
            "student_space": zero,
            "teacher_to_student_cross_entropy": projector_loss,
            "teacher_space": teacher_space,
            "agreement": agree.sum().float(),
            "aligned_share": counts["mapped_share"],
            "mapped_share": counts["teacher_space"],
        }
        return {name: Term(total, counts[name]) for name, total in sums.items()}, projected_logits

    def _from_student(self, batch: LabelledTokens, projected_logits: Tensor) -> dict[str, Tensor]:
        """The sums through the student's head. In its space the target is stopped, so D trains the student."""
        from dskd.divergences import DIVERGENCES

        logits = batch.student_head.logits(batch.student_hidden, padded=True)
        student_logits = batch.student_head.without_padding(batch.at_pairs(logits))
        distance = DIVERGENCES[self.options.divergence](projected_logits, student_logits, self.options.temperature)
        return {
            "cross_entropy": cross_entropy(batch, logits).sum,
            "student_space": _sum_where(batch.notes["chosen"], distance),
        }

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        distillation = means["teacher_to_student_cross_entropy"] + means["student_space"] + means["teacher_space"]
        return (1 - rate) * means["cross_entropy"] + rate * distillation


def _sum_where(mask: Tensor, values: Tensor) -> Tensor:
    """The sum of the values that are masked in."""
    import torch

    return torch.where(mask, values, 0.0).sum()


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

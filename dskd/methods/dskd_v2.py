"""Dual-space knowledge distillation, version 2, for one vocabulary and, with exact token alignment, for two (arXiv 2504.11426).

Notation of docs/method.md: h_i, H_j are hidden states entering the heads W_s, W_t of student and teacher; P, Q the projectors; 𝒜
the aligned pairs (i, j) whose teacher prediction t̂_j = argmax W_t H_j stands for a student token φ(t̂_j). With one vocabulary 𝒜 is
every labelled token and φ the identity, so one piece of code serves both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field

from dskd import losses, modeling
from dskd.losses.tokens import LossTerm, TokenBatch, TwoPassLoss
from dskd.methods.base import (
    DistillationMethod,
    DistillationOptions,
    Requirements,
    cross_entropy,
    labelled_count,
    predictions_of_teacher,
    register,
)
from dskd.methods.dskd_v1 import DistillIn, sum_of, terms_of
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn


class DualSpaceOptions(DistillationOptions):
    """Options of dual-space distillation."""

    agreement_mask: bool = Field(
        True,
        description="distil in the student's space only where the projected teacher predicts what the teacher predicts",
    )
    distill_in: DistillIn = Field(
        "both",
        validation_alias=AliasChoices("distill_in", "spaces"),
        serialization_alias="spaces",
        description="the hidden spaces to distil in; student and teacher are the paper's ablations",
    )
    top_k_vocabulary: int | None = Field(
        None,
        ge=1,
        description="fit the projectors on so many shared tokens, those with the student's lowest ids; by default on all",
    )
    retired: ClassVar = {
        "upstream_parity": ("none", "method dskd.upstream.methods:DualSpaceV2 or :DualSpaceV2ExactTokenAlignment")
    }


class DualSpaceDistillation(TwoPassLoss, DistillationMethod):
    """L = (1 − α) L_CE + α (L_CE^{t→s} + L_KD^{stu} + L_KD^{tea}) (docs/method.md); every count is of the whole step."""

    paper = "arXiv 2504.11426"
    requires = Requirements(projectors=True)
    Options: ClassVar[type[DualSpaceOptions]] = DualSpaceOptions
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 4.0),
        "divergence": Choice("forward_kl", "reverse_kl", "js_divergence"),
        "distill_in": Choice("both", "student", "teacher"),
    }
    first_terms = frozenset({"teacher_to_student_cross_entropy", "teacher_space"})
    projectors: modeling.DualSpaceProjectors
    student_id_of: Tensor

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self._in_student, self._in_teacher = (
            self.options.distill_in in ("both", side) for side in ("student", "teacher")
        )
        self.first_terms = self.first_terms & set(terms_of(self.options.distill_in))

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> nn.Module:
        import torch

        self.projectors = modeling.DualSpaceProjectors(
            student_head, teacher_head, shared, top_k=self.options.top_k_vocabulary
        )
        self.projectors.teacher_to_student.requires_grad_(self._in_student)
        self.student_id_of = torch.from_numpy(shared.student_id_of).to(student_head.weight.device)
        return self.projectors

    def on_step_begin(self, student_head: modeling.Head) -> None:
        self.projectors.follow(student_head, derive=self._in_teacher)

    def projection_head(self, batch: TokenBatch) -> modeling.Head:
        """The head of the projected teacher. It is stopped, so its logits train P alone."""
        return batch.student.head.detach()

    def _projected(self, batch: TokenBatch) -> Tensor:
        projected = self.projectors.to_student(batch.teacher.hidden[batch.teacher.pairs])
        return self.projection_head(batch).logits(projected)

    def _targets(self, batch: TokenBatch, teacher_logits: Tensor | None) -> Tensor:
        """φ(t̂) [pairs], −1 where no student token stands for the teacher's prediction; logits where t̂ is not known already."""
        return self.student_id_of[predictions_of_teacher(batch, teacher_logits)]

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        import torch

        with torch.no_grad():
            known = batch.teacher.predictions is not None
            hidden = batch.teacher.hidden[batch.teacher.pairs]
            targets = self._targets(batch, None if known else batch.teacher.head.logits(hidden))
            masked = self._in_student and self.options.agreement_mask
            agree = losses.argmax_of_rows(self._projected(batch)) == targets if masked else None
            return self._counts(batch, targets, agree)

    def _counts(self, batch: TokenBatch, targets: Tensor, agree: Tensor | None) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        aligned = (targets >= 0).sum().to(labelled.dtype)
        counts = {"cross_entropy": labelled, **dict.fromkeys(terms_of(self.options.distill_in), aligned)}
        if self._in_student:
            counts["agreement"] = aligned
            if self.options.agreement_mask and agree is not None:
                counts["student_space"] = agree.sum().to(labelled.dtype)
        return counts | {"aligned_share": labelled, "mapped_share": labelled.new_full((), float(len(targets)))}

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        first, projected_logits = self._from_teacher(batch)
        second = self._from_student(batch, projected_logits)
        return {name: LossTerm(second.get(name, term.total), term.normalizer) for name, term in first.items()}

    def first_pass(self, batch: TokenBatch) -> dict[str, LossTerm]:
        terms, projected_logits = self._from_teacher(batch)
        if projected_logits is not None:
            batch.recomputable["projected_logits"] = projected_logits
        return terms

    def second_pass(self, batch: TokenBatch) -> dict[str, Tensor]:
        import torch

        projected_logits = batch.recomputable.pop("projected_logits", None)
        if projected_logits is None and self._in_student:
            with torch.no_grad():
                projected_logits = self._projected(batch)
        return self._from_student(batch, projected_logits)

    def _from_teacher(self, batch: TokenBatch) -> tuple[dict[str, LossTerm], Tensor | None]:
        """(terms, those through the student's head still zero; the projected logits [pairs, vocabulary], detached)."""
        import torch

        with torch.no_grad():
            teacher_logits = None
            if self._in_teacher or batch.teacher.predictions is None:
                teacher_logits = batch.teacher.head.logits(batch.teacher.hidden[batch.teacher.pairs])
            targets = self._targets(batch, teacher_logits)
            known = targets >= 0  # positions without a target are masked: picking them out would read from the device

        sums = {}
        if self._in_teacher:
            # Q is derived and W_t frozen, so the gradient reaches the student's hidden states and not its head.
            mapped_logits = batch.teacher.head.detach().logits(
                self.projectors.to_teacher(batch.student.at_pairs(batch.student.hidden))
            )
            sums["teacher_space"] = _sum_where(known, self.options.distance()(teacher_logits, mapped_logits))
            del mapped_logits
        del teacher_logits
        projected_logits = agree = None
        if self._in_student:
            projected_logits = self._projected(batch)
            sums["teacher_to_student_cross_entropy"] = losses.cross_entropy_sum(projected_logits, targets)
            projected_logits = projected_logits.detach()
            agree = losses.argmax_of_rows(projected_logits) == targets
            sums["agreement"] = agree.sum().float()
            batch.saved["chosen"] = agree if self.options.agreement_mask else known

        counts = self._counts(batch, targets, agree)
        sums |= {"aligned_share": counts["mapped_share"], "mapped_share": known.sum().float()}
        zero = torch.zeros_like(counts["cross_entropy"])
        return {name: LossTerm(sums.get(name, zero), count) for name, count in counts.items()}, projected_logits

    def _from_student(self, batch: TokenBatch, projected_logits: Tensor | None) -> dict[str, Tensor]:
        """The sums through the student's head. In its space the target is stopped, so D trains the student."""
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        sums = {"cross_entropy": cross_entropy(batch, logits).total}
        if projected_logits is not None:
            student_logits = batch.student.head.without_padding(batch.student.at_pairs(logits))
            distance = self.options.distance()(projected_logits, student_logits)
            sums["student_space"] = _sum_where(batch.saved["chosen"], distance)
        return sums

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor:
        """The pairs for which the teacher's prediction has a token of the student; `agreement` is a further share of these."""
        return terms["mapped_share"].total

    def distillation(self, means: dict[str, Tensor]) -> Tensor:
        return sum_of(means, terms_of(self.options.distill_in))


def _sum_where(mask: Tensor, values: Tensor) -> Tensor:
    import torch

    return torch.where(mask, values, 0.0).sum()


@register
class DualSpaceV2(DualSpaceDistillation):
    """For a teacher and a student with one vocabulary."""

    name = "dskd-v2"
    title = "DSKD, version 2"
    requires = Requirements(vocabulary="same", projectors=True)


@register
class DualSpaceV2ExactTokenAlignment(DualSpaceDistillation):
    """For any two vocabularies; with one vocabulary it equals dskd-v2."""

    name = "dskd-v2-eta"
    title = "DSKD, version 2, exact token alignment"

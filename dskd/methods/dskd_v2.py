"""Dual-space knowledge distillation, version 2, for one vocabulary and, with exact token alignment, for two (arXiv 2504.11426).

Notation of docs/method.md: h_i, H_j are hidden states entering the heads W_s, W_t of student and teacher; P, Q the projectors; 𝒜
the aligned pairs (i, j) whose teacher prediction t̂_j = argmax W_t H_j stands for a student token φ(t̂_j). With one vocabulary 𝒜 is
every labelled token and φ the identity, so one piece of code serves both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import AliasChoices, Field

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
from dskd.methods.dskd_v1 import DistillIn, terms_of
from dskd.upstream.defects import UpstreamParity, defects

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dskd.modeling.lm_head import Head
    from dskd.modeling.projectors import DualSpaceProjectors
    from dskd.tokenization.vocabulary import SharedVocabulary


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
    upstream_parity: UpstreamParity = Field(
        "none",
        description="as published code does, none, dskdv2 or kdflow, or a list of single defects: string_alignment, "
        "dskdv2_token_lookup or kdflow_token_lookup, micro_batch_means, stale_head (dskd/upstream/defects.py)",
    )


class DualSpaceDistillation(Method):
    """L = (1 − α) L_CE + α (L_CE^{t→s} + L_KD^{stu} + L_KD^{tea}) (docs/method.md).

    The published code divides the masked term by a count of the micro-batch; here every count is of the whole step, unless told.
    """

    paper = "arXiv 2504.11426"
    needs_teacher = True
    Options = DualSpaceOptions
    first_terms = frozenset({"teacher_to_student_cross_entropy", "teacher_space"})
    # The terms that the published code averages over a micro-batch.
    averaged: ClassVar[frozenset[str]] = frozenset({"student_space"})
    projectors: DualSpaceProjectors
    student_id_of: Tensor
    _initial_head: Head | None = None

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self._in_student, self._in_teacher = (
            self.options.distill_in in ("both", side) for side in ("student", "teacher")
        )
        self._defects = defects(self.options.upstream_parity)
        # Of this method with these options, so on the instance: a mean over a micro-batch is no sum over parts of it.
        self.per_token = "micro_batch_means" not in self._defects
        if "string_alignment" in self._defects:
            self.pairing = "string"
        self.first_terms = self.first_terms & set(terms_of(self.options.distill_in))

    def prepare(self, student_head: Head, teacher_head: Head | None, shared: SharedVocabulary | None) -> nn.Module:
        import torch

        from dskd.modeling.projectors import DualSpaceProjectors
        from dskd.upstream.string_alignment import published_student_ids

        assert teacher_head is not None
        assert shared is not None
        self.projectors = DualSpaceProjectors(student_head, teacher_head, shared, top_k=self.options.top_k_vocabulary)
        self.projectors.teacher_to_student.requires_grad_(self._in_student)
        if "stale_head" in self._defects:
            head = student_head.detach()
            bias = None if head.bias is None else head.bias.clone()
            self._initial_head = replace(head, weight=head.weight.clone(), bias=bias)
        student_id_of = shared.student_id_of
        for code in ("dskdv2", "kdflow"):
            if f"{code}_token_lookup" in self._defects and not shared.same:
                student_id_of = published_student_ids(shared, code)
        self.student_id_of = torch.from_numpy(student_id_of).to(student_head.weight.device)
        return self.projectors

    def begin_step(self, student_head: Head) -> None:
        self.projectors.follow(student_head, derive=self._in_teacher and self._initial_head is None)

    def _projected(self, batch: LabelledTokens) -> Tensor:
        """The projected teacher's logits [pairs, vocabulary]. The head is stopped, so they train P alone."""
        assert batch.teacher_hidden is not None
        head = batch.student_head.detach() if self._initial_head is None else self._initial_head
        return head.logits(self.projectors.to_student(batch.teacher_hidden[batch.teacher_pairs]))

    def _targets(self, batch: LabelledTokens, teacher_logits: Tensor | None) -> Tensor:
        """φ(t̂) [pairs], −1 where no student token stands for the teacher's prediction; logits where t̂ is not known already."""
        return self.student_id_of[predictions_of_teacher(batch, teacher_logits)]

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        import torch

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        with torch.no_grad():
            known = batch.teacher_predictions is not None
            hidden = batch.teacher_hidden[batch.teacher_pairs]
            targets = self._targets(batch, None if known else batch.teacher_head.logits(hidden))
            masked = self._in_student and self.options.agreement_mask and self._summed("student_space")
            agree = self._projected(batch).argmax(-1) == targets if masked else None
            counts = self._counts(batch, targets, agree)
        return {name: count if self._summed(name) else torch.ones_like(count) for name, count in counts.items()}

    def _counts(self, batch: LabelledTokens, targets: Tensor, agree: Tensor | None) -> dict[str, Tensor]:
        """Before any averaging over the micro-batch; `agree` may be None where no mask counts."""
        labelled = labelled_count(batch)
        aligned = (targets >= 0).sum().to(labelled.dtype)
        counts = {"cross_entropy": labelled, **dict.fromkeys(terms_of(self.options.distill_in), aligned)}
        if self._in_student:
            counts["agreement"] = aligned
            if self.options.agreement_mask and agree is not None:
                counts["student_space"] = agree.sum().to(labelled.dtype)
        return counts | {"aligned_share": labelled, "mapped_share": labelled.new_full((), float(len(targets)))}

    def _summed(self, name: str) -> bool:
        """Whether a term is a sum over tokens, and not the mean of a micro-batch."""
        return "micro_batch_means" not in self._defects or name not in self.averaged

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        import torch

        first, projected_logits = self._from_teacher(batch)
        second = self._from_student(batch, projected_logits)
        terms = {}
        for name, term in first.items():
            total = second.get(name, term.sum)
            if self._summed(name):
                terms[name] = Term(total, term.count)
            else:
                terms[name] = Term(total / term.count.clamp_min(1.0), torch.ones_like(term.count))
        return terms

    def first_pass(self, batch: LabelledTokens) -> dict[str, Term]:
        terms, projected_logits = self._from_teacher(batch)
        if projected_logits is not None:
            batch.large_notes["projected_logits"] = projected_logits
        return terms

    def second_pass(self, batch: LabelledTokens) -> dict[str, Tensor]:
        import torch

        projected_logits = batch.large_notes.pop("projected_logits", None)
        if projected_logits is None and self._in_student:
            with torch.no_grad():
                projected_logits = self._projected(batch)
        return self._from_student(batch, projected_logits)

    def _from_teacher(self, batch: LabelledTokens) -> tuple[dict[str, Term], Tensor | None]:
        """(terms, those through the student's head still zero; the projected logits [pairs, vocabulary], detached)."""
        import torch

        from dskd.losses.cross_entropy import cross_entropy_sum

        assert batch.teacher_head is not None
        assert batch.teacher_hidden is not None
        with torch.no_grad():
            teacher_logits = None
            if self._in_teacher or batch.teacher_predictions is None:
                teacher_logits = batch.teacher_head.logits(batch.teacher_hidden[batch.teacher_pairs])
            targets = self._targets(batch, teacher_logits)
            known = targets >= 0  # positions without a target are masked: picking them out would read from the device

        sums = {}
        if self._in_teacher:
            # Q is derived and W_t frozen, so the gradient reaches the student's hidden states and not its head.
            mapped_logits = batch.teacher_head.detach().logits(
                self.projectors.to_teacher(batch.at_pairs(batch.student_hidden))
            )
            sums["teacher_space"] = _sum_where(known, self.options.distance()(teacher_logits, mapped_logits))
            del mapped_logits
        del teacher_logits
        projected_logits = agree = None
        if self._in_student:
            projected_logits = self._projected(batch)
            sums["teacher_to_student_cross_entropy"] = cross_entropy_sum(projected_logits, targets)
            projected_logits = projected_logits.detach()
            agree = projected_logits.argmax(-1) == targets
            sums["agreement"] = agree.sum().float()
            batch.notes["chosen"] = agree if self.options.agreement_mask else known

        counts = self._counts(batch, targets, agree)
        sums |= {"aligned_share": counts["mapped_share"], "mapped_share": known.sum().float()}
        zero = torch.zeros_like(counts["cross_entropy"])
        return {name: Term(sums.get(name, zero), count) for name, count in counts.items()}, projected_logits

    def _from_student(self, batch: LabelledTokens, projected_logits: Tensor | None) -> dict[str, Tensor]:
        """The sums through the student's head. In its space the target is stopped, so D trains the student."""
        logits = batch.student_head.logits(batch.student_hidden, padded=True)
        sums = {"cross_entropy": cross_entropy(batch, logits).sum}
        if projected_logits is not None:
            student_logits = batch.student_head.without_padding(batch.at_pairs(logits))
            distance = self.options.distance()(projected_logits, student_logits)
            sums["student_space"] = _sum_where(batch.notes["chosen"], distance)
        return sums

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        distillation = sum(means[name] for name in terms_of(self.options.distill_in))
        return (1 - rate) * means["cross_entropy"] + rate * distillation


def _sum_where(mask: Tensor, values: Tensor) -> Tensor:
    """The sum of the values that are masked in."""
    import torch

    return torch.where(mask, values, 0.0).sum()


@register
class DualSpaceV2(DualSpaceDistillation):
    """For a teacher and a student with one vocabulary."""

    name = "dskd-v2"
    title = "DSKD, version 2"
    vocabulary = "same"


@register
class DualSpaceV2ExactTokenAlignment(DualSpaceDistillation):
    """For any two vocabularies; with one vocabulary it equals dskd-v2."""

    name = "dskd-v2-eta"
    title = "DSKD, version 2, exact token alignment"
    vocabulary = "any"
    averaged = frozenset({"teacher_to_student_cross_entropy", "student_space", "teacher_space"})

"""Dual-space knowledge distillation, version 1, with cross-model attention, for any two vocabularies (arXiv 2406.17328).

Notation of docs/method.md: h_i, H_j are hidden states entering the heads W_s, W_t of student and teacher; P and Q the affine
projectors to the student's and to the teacher's space; E_s, E_t the input embeddings; x_i, X_j the tokens at the positions that
predict the labels y_i, Y_j.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dskd import losses, modeling
from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, SideTokens, TokenBatch
from dskd.methods.base import Requirements, cross_entropy, labelled_count, register
from dskd.methods.dskd_v1 import DualSpaceV1Distillation, DualSpaceV1Options
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn


class CrossModelAttentionOptions(DualSpaceV1Options):
    """Options of dual-space distillation with cross-model attention."""

    accuracy_mask: bool = Field(
        True, description="distil in the student's space only where the projected teacher predicts the label"
    )
    teacher_temperature: float = Field(
        1.0, gt=0.0, description="divides, beside τ, the projected teacher's logits in the student's space"
    )
    retired: ClassVar = {"upstream_parity": (False, "method dskd.upstream.methods:DualSpaceV1CrossModelAttention")}


@register
class DualSpaceV1CrossModelAttention(DualSpaceV1Distillation):
    """L = (1 − α) L_CE + α (L_CE^{t→s} + L_KD^{stu} + L_KD^{tea}) (docs/method.md), all over the student's labelled tokens.

    S_ij = (P_q a_i)ᵀ b_j / √(2D), within an example; a = [E_s(x); E_s(y)], b = [E_t(X); E_t(Y)] / std. The student's token i takes
    softmax_j(S) of P(H_j / std + E_t(Y_j) / std), the teacher's token j takes softmax_i(S) of Q(h_i).
    """

    name = "dskd-v1-cma"
    title = "DSKD, version 1, cross-model attention"
    not_reproduced = "A first stage that trains the projectors alone is not here."
    requires = Requirements(chunkable=False, embeddings=True, projectors=True)
    Options: ClassVar[type[CrossModelAttentionOptions]] = CrossModelAttentionOptions
    projectors: modeling.CrossModelProjectors

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> nn.Module:

        self.projectors = modeling.CrossModelProjectors(student_head, teacher_head)
        return self._without_unused()

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        device = batch.student.labels.device
        # Attention is in float32, as published; only the products of the heads follow the training's precision.
        with torch.autocast(device.type, enabled=False):
            student, teacher = (
                modeling.Layout(batch.student.sizes, device),
                modeling.Layout(batch.teacher.sizes, device),
            )
            queries, keys, values = self._queries_keys_values(batch, teacher)
            attention = modeling.CrossModelAttention.between(queries, keys, student, teacher)
            matching = self._matching(batch, queries, keys)
            projected = mapped = None
            if self.options.distill_in != "teacher":
                projected = attention.to_student(self.projectors.to_student(values))
            if self.options.distill_in != "student":
                mapped = attention.to_teacher(self.projectors.to_teacher(batch.student.hidden))
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        sums = {}
        if mapped is not None:
            sums["teacher_space"] = self._in_teacher_space(batch, mapped, attention)
        if projected is not None:
            sums |= self._in_student_space(batch, projected, attention, logits)
        count = labelled_count(batch)
        distilled = {name: LossTerm(sums[name], count) for name in sums}
        return {"cross_entropy": cross_entropy(batch, logits)} | distilled | matching

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor:
        """Every token of an example in which the teacher has some: there is no need of pairs."""
        taught = batch.student.sizes[batch.teacher.sizes > 0].sum()
        return labelled_count(batch).new_full((), float(taught))

    def _matching(self, batch: TokenBatch, queries: Tensor, keys: Tensor) -> dict[str, LossTerm]:
        """Terms of the queries and keys themselves, in float32; here there are none."""
        return {}

    def _queries_keys_values(self, batch: TokenBatch, teacher: modeling.Layout) -> tuple[Tensor, Tensor, Tensor]:
        """(P_q a [tokens, 2 · teacher hidden], b [teacher tokens, 2 · teacher hidden], what P turns into the teacher's values)."""
        import torch

        with torch.no_grad():
            found_by = torch.cat(_embedded(batch.student, "student"), dim=-1)
            inputs, targets = _embedded(batch.teacher, "teacher")
            keys = torch.cat([inputs, targets], dim=-1)
            keys, hidden, targets = self.scaled(batch, teacher, keys, batch.teacher.hidden.float(), targets)
        return self.projectors.query(found_by), keys, hidden + targets

    def scaled(
        self, batch: TokenBatch, teacher: modeling.Layout, keys: Tensor, hidden: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's keys, hidden states and targets, each divided by its standard deviation in an example."""

        return teacher.scaled(keys), teacher.scaled(hidden), teacher.scaled(targets)

    def _in_teacher_space(self, batch: TokenBatch, mapped: Tensor, attention: modeling.CrossModelAttention) -> Tensor:
        """W_t is frozen, so the gradient reaches Q, the queries and the student's hidden states, not its head."""
        import torch

        with torch.no_grad():
            teacher_logits = batch.teacher.head.logits(batch.teacher.hidden)
        mapped_logits = batch.teacher.head.detach().logits(mapped)
        distance = self.options.distance(self.options.teacher_space_divergence)(teacher_logits, mapped_logits)
        return torch.where(attention.teacher.each(attention.student.sizes > 0), distance, 0.0).sum()

    def _in_student_space(
        self, batch: TokenBatch, projected: Tensor, attention: modeling.CrossModelAttention, logits: Tensor
    ) -> dict[str, Tensor]:
        """The head is stopped, so the cross entropy trains P and the queries; the target is stopped, so D trains the student."""
        import torch

        partnered = attention.student.each(attention.teacher.sizes > 0)
        labels = torch.where(partnered, batch.student.labels, -1)
        projected_logits = batch.student.head.detach().logits(projected)
        projector_loss = losses.cross_entropy_sum(projected_logits, labels)
        projected_logits = projected_logits.detach()
        right = losses.argmax_of_rows(projected_logits) == labels
        if self.options.teacher_temperature != 1.0:
            projected_logits = projected_logits / self.options.teacher_temperature
        distance = self.options.distance()(projected_logits, batch.student.head.without_padding(logits))
        chosen = right if self.options.accuracy_mask else partnered
        return {
            "teacher_to_student_cross_entropy": projector_loss,
            "student_space": torch.where(chosen, distance, 0.0).sum(),
            "teacher_to_student_accuracy": right.sum().float(),
        }


def _embedded(side: SideTokens, name: str) -> tuple[Tensor, Tensor]:
    """Input embeddings in float32 of the tokens at a model's labelled positions and of their labels, each [tokens, hidden]."""
    if side.embedding is None:
        raise InputError(
            f"{name}: its input embedding is not known; fix: run the teacher live, or build its cache again in another folder"
        )
    if side.embedding.shape[1] != side.head.weight.shape[1]:
        raise InputError(
            f"{name}: its input embedding has {side.embedding.shape[1]} columns and its head {side.head.weight.shape[1]}; "
            "fix: use another model, or dskd-v2-eta"
        )
    return side.embedding[side.inputs].float(), side.embedding[side.labels].float()

"""Distillation inside the shared vocabulary, on tokens that cover the same bytes in both models (arXiv 2610.08448).

Notation of docs/method.md: pairs (i, j) of tokens on the same bytes; O the shared vocabulary, one pair of ids a byte string and one
for the end of sequence. The same idea, with averages over all labelled tokens, is KDFlow's SimpleCTKD.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dskd import losses, modeling
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    DistillationMethod,
    DistillationOptions,
    DivergenceName,
    Requirements,
    logits_of_teacher,
    register,
    top_k_of_teacher,
)
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor


class StrictOptions(DistillationOptions):
    """Options of strict distillation; the paper's are the student's own text, reverse KL, τ = 1 and kd_rate 1."""

    temperature: float = Field(1.0, gt=0.0, description="τ; divides both models' logits in the divergence")
    divergence: DivergenceName = Field(
        "reverse_kl", description="of the teacher's and the student's distributions over O"
    )
    top_k: int = Field(
        0,
        ge=0,
        description="compare the tokens of O that the student finds most probable, so many; 0: all (paper: 0, 16, 128)",
    )
    outside: Literal["left_out", "one_outcome"] = Field(
        "left_out",
        description="probability of what is not compared: left_out, the rest renormalised (paper), or one_outcome more",
    )


@register
class StrictDistillation(DistillationMethod):
    """L = (1 − α) L_CE + α · mean over the pairs of D(p_j restricted to O || q_i restricted to O) (docs/method.md)."""

    name = "strict-kd"
    title = "strict shared-vocabulary distillation"
    paper = "arXiv 2610.08448"
    not_reproduced = (
        "The paper's code is not public: which tokens it drops from O as ambiguous is not known, nor what it divides by; "
        "its penalty on tokens without a partner, which made every setting worse, is left out."
    )
    requires = Requirements(outputs_with_options={"top_k": "outside: one_outcome, top_k: 0"})
    Options = StrictOptions
    # Of top_k the paper finds 0, 16 and 128 alike.
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 4.0),
        "divergence": Choice("forward_kl", "reverse_kl", "js_divergence"),
    }
    teacher_ids: Tensor
    student_ids: Tensor
    student_id_of: Tensor

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        if self.options.outside == "one_outcome" and not self.options.top_k:
            self.requires = self.requires.also_from("top_k")

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> None:
        import torch

        device = student_head.weight.device
        self.teacher_ids = torch.from_numpy(shared.teacher_ids).to(device)
        self.student_ids = torch.from_numpy(shared.student_ids).to(device)
        partners = torch.full((len(shared.student_id_of),), -1, device=device)
        self.student_id_of = partners.index_copy(0, self.teacher_ids, self.student_ids)

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(batch.student.at_pairs(logits))
        if batch.teacher.top_k_ids is not None:
            distance = self._distance_of_top_k(batch, student_logits)
        else:
            distance = self._distance(logits_of_teacher(batch), student_logits)
        counts = self.counts(batch)
        return {
            "cross_entropy": self.cross_entropy(batch, logits),
            "distillation": LossTerm(distance.sum(), counts["distillation"]),
            "aligned_share": LossTerm(counts["distillation"], counts["aligned_share"]),
        }

    def _distance(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """Of whole distributions [pairs]."""
        ids = self._compared(student_logits)
        distance: Tensor
        if self.options.outside == "left_out":
            distance = self.options.distance()(teacher_logits.gather(-1, ids[0]), student_logits.gather(-1, ids[1]))
        else:
            log_p = losses.with_rest_bucket(teacher_logits, ids[0], self.options.temperature)
            log_q = losses.with_rest_bucket(student_logits, ids[1], self.options.temperature)
            distance = self.options.distance(temperature=1.0)(log_p, log_q)
        return distance

    def _distance_of_top_k(self, batch: TokenBatch, student_logits: Tensor) -> Tensor:
        """Of the tokens of O among the teacher's most probable ones and, as one outcome, all others [pairs]."""
        ids, log_p = top_k_of_teacher(batch)
        partners = self.student_id_of[ids.clamp_min(0)].masked_fill(ids < 0, -1)
        both = losses.with_rest_bucket_of_top_k(partners, log_p, student_logits, self.options.temperature)
        distance: Tensor = self.options.distance(temperature=1.0)(*both)
        return distance

    def _compared(self, student_logits: Tensor) -> tuple[Tensor, Tensor]:
        """The ids whose probabilities are compared, of the teacher and of the student, both [pairs, ids]."""
        pairs = len(student_logits)
        teacher_ids, student_ids = self.teacher_ids.expand(pairs, -1), self.student_ids.expand(pairs, -1)
        if not 0 < self.options.top_k < len(self.student_ids):
            return teacher_ids, student_ids
        best = student_logits.detach().gather(-1, student_ids).topk(self.options.top_k, sorted=False).indices
        return teacher_ids.gather(-1, best), student_ids.gather(-1, best)

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        counts = super().counts(batch)
        return {**counts, "aligned_share": counts["cross_entropy"]}

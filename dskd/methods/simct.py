"""SimCT (arXiv 2605.07711) for any two vocabularies: the tokens that both have and, beside them, the span that was written.

Notation of docs/rivals.md: c a byte group, i and j its first tokens of the student and the teacher; O the shared vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dskd import losses, modeling
from dskd.losses.tokens import LossTerm, SideTokens, TokenBatch
from dskd.methods.base import (
    DistillationMethod,
    DivergenceName,
    DivergenceOptions,
    Requirements,
    cross_entropy,
    labelled_count,
    register,
)
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor


class SimCtOptions(DivergenceOptions):
    """Options of SimCT; defaults are the paper's, which trains on the student's own text and without cross entropy."""

    kd_rate: float = Field(1.0, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    temperature: float = Field(1.0, gt=0.0, description="τ; divides the scores of both models")
    divergence: DivergenceName = Field(
        "reverse_kl", description="of the teacher's and the student's distributions over O and the span"
    )
    span_score: Literal["log_probabilities", "logits"] = Field(
        "log_probabilities",
        description="of which the mean over a span's tokens is its score: log-probabilities (paper) or logits as they are (released)",
    )
    first_token: Literal["kept", "left_out"] = Field(
        "kept",
        description="whether tokens of O that a span begins with compete with it (paper), although they are the same event",
    )
    strict_pairs: bool = Field(False, description="distil only in groups of one token on either side")


@register
class SimCt(DistillationMethod):
    """L = (1 − α) L_CE + α · mean over the groups of D(p_c ‖ q_c), by default KL(q_c ‖ p_c) (docs/rivals.md).

    q_c is the softmax of log q_i(v) / τ, v of O, and for a group that is not one token on either side of one more,
    s_c / τ = (1 / k) Σ log q(y) / τ over its k tokens; p_c the same of the teacher.
    """

    name = "simct"
    title = "SimCT, shared tokens and spans"
    paper = "arXiv 2605.07711"
    requires = Requirements(chunkable=False)
    not_reproduced = (
        "The paper is known by its abstract and others' quotations: whether spans that were not written compete, too, is not settled. "
        "Segments by strings, a divisor by response tokens, and the later mask of unlikely rows are left out."
    )
    Options = SimCtOptions
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 2.0),
        "divergence": Choice("forward_kl", "reverse_kl", "js_divergence"),
        "span_score": Choice("log_probabilities", "logits"),
    }
    teacher_ids: Tensor
    student_ids: Tensor

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> None:
        import torch

        device = student_head.weight.device
        self.teacher_ids = torch.from_numpy(shared.teacher_ids).to(device)
        self.student_ids = torch.from_numpy(shared.student_ids).to(device)

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return self._counts(batch, self._kept(*losses.groups_of(batch)))

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        student, teacher = losses.groups_of(batch)
        kept = self._kept(student, teacher)
        left_out = self._left_out(batch, student, teacher)
        with torch.no_grad():
            teacher_logits = batch.teacher.head.logits(batch.teacher.hidden)
            of_teacher = self._scores(batch.teacher, teacher, teacher_logits, self.teacher_ids, left_out)
            del teacher_logits
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(logits)
        of_student = self._scores(batch.student, student, student_logits, self.student_ids, left_out)
        distance = torch.where(kept, self.options.distance()(of_teacher, of_student), 0.0)
        del of_teacher, of_student  # before the cross entropy makes its own tensor
        sums = {
            "cross_entropy": cross_entropy(batch, logits).total,
            "distillation": distance.sum(),
            "grouped_share": (student.sizes() * kept).sum().float(),
        }
        return {name: LossTerm(sums[name], count) for name, count in self._counts(batch, kept).items()}

    def _kept(self, student: losses.ByteGroups, teacher: losses.ByteGroups) -> Tensor:
        """The groups that are distilled, bool [limit]."""
        return losses.matched_groups(student, teacher, strict=self.options.strict_pairs)

    def _counts(self, batch: TokenBatch, kept: Tensor) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        return {
            "cross_entropy": labelled,
            "grouped_share": labelled,
            "distillation": kept.sum().to(labelled.dtype),
        }

    def _left_out(self, batch: TokenBatch, student: losses.ByteGroups, teacher: losses.ByteGroups) -> Tensor:
        """What takes no part in each group, bool [limit, O + 1]: the span where there is none, and what it begins with if asked for."""
        import torch

        span = (student.sizes() > 1) | (teacher.sizes() > 1)
        none = torch.zeros(len(span), len(self.student_ids), dtype=torch.bool, device=span.device)
        if self.options.first_token == "left_out" and len(batch.student.labels) and len(batch.teacher.labels):
            begins = batch.student.labels[student.first()], batch.teacher.labels[teacher.first()]
            none = (self.student_ids == begins[0].unsqueeze(-1)) | (self.teacher_ids == begins[1].unsqueeze(-1))
            none &= span.unsqueeze(-1)
        return torch.cat([none, ~span.unsqueeze(-1)], -1)

    def _scores(
        self, side: SideTokens, groups: losses.ByteGroups, logits: Tensor, ids: Tensor, left_out: Tensor
    ) -> Tensor:
        """Up to a constant of each group, its scores of O and of the span [limit, O + 1], from logits [tokens, vocabulary].

        The constant is the normaliser of the group's first token, so the logits of O are as they are.
        """
        import torch

        if not len(logits):
            return logits.new_zeros(left_out.shape, dtype=torch.float32)
        first = groups.first()
        own, normaliser = losses.own_log_probabilities(logits, side.labels)
        as_logits = self.options.span_score == "logits"
        span = groups.means(own + normaliser) if as_logits else groups.means(own) + normaliser[first]
        shared = logits.index_select(0, first).gather(-1, ids.expand(len(first), -1)).float()
        return torch.cat([shared, span.unsqueeze(-1)], -1).masked_fill_(left_out, -torch.inf)

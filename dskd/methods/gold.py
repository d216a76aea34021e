"""General online logit distillation (GOLD), the objective of TRL's experimental trainer of that name, for any two vocabularies.

It grew out of universal logit distillation (arXiv 2402.12030): tokens that cover the same bytes are grouped, each group is merged
into one distribution on either side, and these are compared (docs/method.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from dskd import losses, modeling
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import DistillationMethod, Options, Requirements, labelled_count, register
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor


class GoldOptions(Options):
    """Options of GOLD; defaults are the trainer's, the merge strategy excepted."""

    kd_rate: float = Field(1.0, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    student_temperature: float = Field(1.0, gt=0.0, description="divides the student's logits in the distillation")
    teacher_temperature: float = Field(1.0, gt=0.0, description="divides the teacher's logits in the distillation")
    token_merge_strategy: Literal["bayesian", "observed"] = Field(
        "bayesian",
        description="of a group's tokens, whose distribution stands for the group: the last one's, times the probability of those "
        "before it, or the first one's, times that of those after it",
    )
    skip_eos: bool = Field(True, description="leave the ends of sequence out of the distillation")
    strict_pairs: bool = Field(False, description="distil only in groups of one token on either side")
    hybrid_loss: bool = Field(
        False, description="compare tokens that both vocabularies have by js_divergence, sort only the others"
    )
    js_beta: float = Field(
        0.5, ge=0.0, le=1.0, description="β of the hybrid loss's js_divergence; weighs the teacher, as in GKD"
    )
    hybrid_matched_weight: float | None = Field(
        None, ge=0.0, description="weight of the tokens that both have; by default their share of the teacher's"
    )
    hybrid_unmatched_weight: float | None = Field(
        None, ge=0.0, description="weight of the other tokens; by default the rest of one"
    )
    probability_floor: float = Field(
        1e-8, gt=0.0, lt=1.0, description="probabilities below it count as it in the hybrid loss's js_divergence"
    )

    @model_validator(mode="after")
    def _weights_of_a_hybrid_loss(self) -> GoldOptions:
        weights = (self.hybrid_matched_weight, self.hybrid_unmatched_weight)
        if (weights[0] is None) != (weights[1] is None):
            raise ValueError("hybrid_matched_weight and hybrid_unmatched_weight go together: give both or neither")
        if weights[0] is not None and not self.hybrid_loss:
            raise ValueError(
                "hybrid_matched_weight and hybrid_unmatched_weight are of the hybrid loss: set hybrid_loss"
            )
        return self


@register
class GeneralOnlineLogitDistillation(DistillationMethod):
    """L = (1 − α) L_CE + α L_unmatched, or with `hybrid_loss` (1 − α) L_CE + α (w_m L_matched + w_u L_unmatched).

    For a group c whose tokens are i_1 … i_k, the merged distribution is, unnormalised,

        q̂_c(v) = q_{i_1}(y_{i_1}) … q_{i_{k−1}}(y_{i_{k−1}}) q_{i_k}(v)   bayesian,
        q̂_c(v) = q_{i_1}(v) q_{i_2}(y_{i_2}) … q_{i_k}(y_{i_k})           observed,

    and p̂_c the same of the teacher. Means over groups of the whole step of Σ_k |sort q̂_c − sort p̂_c|_k, the shorter padded with
    zeros, and of the generalised Jensen-Shannon divergence on the tokens O that both have. `bayesian` is the default, unlike the
    trainer's: its entries are probabilities by the chain rule, those of `observed` are not where v is another token than the first.
    """

    name = "gold"
    title = "general online logit distillation"
    paper = "TRL's GOLD trainer; after arXiv 2402.12030"
    requires = Requirements(chunkable=False)
    not_reproduced = (
        "Alignment by position (use_extended_uld off) and the misplaced rows of the released observed strategy."
    )
    Options = GoldOptions
    # js_beta is of the hybrid loss alone.
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "teacher_temperature": Log(0.5, 2.0),
        "hybrid_loss": Choice(False, True),
        "js_beta": Choice(0.0, 0.5, 1.0),
    }
    matched_weight: float
    matched_teacher_ids: Tensor
    matched_student_ids: Tensor
    unmatched_teacher_ids: Tensor
    unmatched_student_ids: Tensor
    student_id_matched: Tensor

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> None:
        import torch

        device = student_head.weight.device
        teacher_ids, student_ids = torch.from_numpy(shared.teacher_ids), torch.from_numpy(shared.student_ids)
        teacher_matched = torch.zeros(teacher_head.size, dtype=torch.bool)
        student_matched = torch.zeros(student_head.size, dtype=torch.bool)
        teacher_matched[teacher_ids] = student_matched[student_ids] = self.options.hybrid_loss
        self.matched_teacher_ids, self.matched_student_ids = teacher_ids.to(device), student_ids.to(device)
        self.unmatched_teacher_ids = (~teacher_matched).nonzero().squeeze(-1).to(device)
        self.unmatched_student_ids = (~student_matched).nonzero().squeeze(-1).to(device)
        self.student_id_matched = student_matched.to(device)
        self.matched_weight = len(shared) / teacher_head.size

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:

        return self._counts(batch, self._kept(batch, *losses.groups_of(batch)))

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        student, teacher = losses.groups_of(batch)
        kept = self._kept(batch, student, teacher)
        with torch.no_grad():
            teacher_logits = batch.teacher.head.logits(batch.teacher.hidden)
            log_p = self._merged(teacher_logits, batch.teacher.labels, teacher, self.options.teacher_temperature)
            del teacher_logits
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(logits)
        log_q = self._merged(student_logits, batch.student.labels, student, self.options.student_temperature)
        matched, unmatched = losses.distances_over_groups(self._distances, log_p, log_q, kept, self.student_id_matched)
        del log_p, log_q  # before the cross entropy makes its own tensor of that size
        sums = {
            "cross_entropy": self.cross_entropy(batch, logits).total,
            "matched": matched,
            "unmatched": unmatched,
            "grouped_share": (student.sizes() * kept).sum().float(),
        }
        return {name: LossTerm(sums[name], count) for name, count in self._counts(batch, kept).items()}

    def distillation(self, means: dict[str, Tensor]) -> Tensor:
        if not self.options.hybrid_loss:
            return means["unmatched"]
        matched, unmatched = self.options.hybrid_matched_weight, self.options.hybrid_unmatched_weight
        if matched is None:
            matched, unmatched = self.matched_weight, 1.0 - self.matched_weight
        return matched * means["matched"] + unmatched * means["unmatched"]

    def _kept(self, batch: TokenBatch, student: losses.ByteGroups, teacher: losses.ByteGroups) -> Tensor:
        """Which groups enter the distillation, bool [limit]."""

        kept = losses.matched_groups(student, teacher, strict=self.options.strict_pairs)
        if self.options.skip_eos:
            kept = kept & ~student.with_any(losses.last_tokens(batch.student.sizes, kept.device))
        return kept

    def _counts(self, batch: TokenBatch, kept: Tensor) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        groups = kept.sum().to(labelled.dtype)
        distances = {"matched": groups} if self.options.hybrid_loss else {}
        return {"cross_entropy": labelled, "grouped_share": labelled, "unmatched": groups, **distances}

    def _merged(self, logits: Tensor, labels: Tensor, groups: losses.ByteGroups, temperature: float) -> Tensor:
        """The logarithm of each group's merged distribution [limit, vocabulary], from logits [tokens, vocabulary]."""

        own, normaliser = losses.own_log_probabilities(logits, labels, temperature)
        token = groups.last() if self.options.token_merge_strategy == "bayesian" else groups.first()
        others = groups.sums(own) - own[token]
        return losses.at_temperature(logits[token], temperature) + (others - normaliser[token]).unsqueeze(-1)

    def _distances(self, log_p: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
        """(of the matched tokens, of the unmatched ones), both [groups], of merged distributions [groups, vocabulary]."""

        if not self.options.hybrid_loss:
            return log_q.new_zeros(len(log_q)), losses.sorted_l1(log_p, log_q)
        matched = generalised_js_divergence(
            log_p[:, self.matched_teacher_ids],
            log_q[:, self.matched_student_ids],
            self.options.js_beta,
            self.options.probability_floor,
        )
        unmatched = losses.sorted_l1(log_p[:, self.unmatched_teacher_ids], log_q[:, self.unmatched_student_ids])
        return matched, unmatched


def generalised_js_divergence(log_p: Tensor, log_q: Tensor, beta: float, floor: float) -> Tensor:
    """β D(p ‖ m) + (1 − β) D(q ‖ m) with m = β p + (1 − β) q, at β = 0 D(p ‖ q), at β = 1 D(q ‖ p) [groups].

    D(a ‖ b) = Σ a log(a / b) − a + b, because merged distributions do not add up to one. Between the ends the last two cancel.
    """
    import torch

    log_p, log_q = log_p.clamp_min(math.log(floor)), log_q.clamp_min(math.log(floor))
    p, q = log_p.exp(), log_q.exp()
    if beta == 0.0:
        return (p * (log_p - log_q) - p + q).sum(-1)
    if beta == 1.0:
        return (q * (log_q - log_p) - q + p).sum(-1)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log1p(-beta))
    return (beta * p * (log_p - log_m) + (1 - beta) * q * (log_q - log_m)).sum(-1)

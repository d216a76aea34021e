"""X-Token (arXiv 2605.21699) for any two vocabularies: a sparse matrix between the vocabularies, and means over byte groups.

Notation of docs/rivals.md: c a byte group, its tokens i of the student and j of the teacher; W [student tokens, teacher tokens].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from dskd import losses, modeling, tokenization
from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    Method,
    Options,
    Requirements,
    StepStatistics,
    UsesTokenizers,
    cross_entropy,
    labelled_count,
    register,
)
from dskd.methods.space import Choice, Log, Space
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor


_TINY = 1.2e-38  # next to the least float32 that has all its digits


class XTokenOptions(Options):
    """Options of X-Token; defaults are the released code's, with its static weights in place of the dynamic ones."""

    form: Literal["p_kl", "gold", "h_kl"] = Field(
        "p_kl",
        description="p_kl: the student's distribution is carried into the teacher's vocabulary; gold: tokens that both have are compared, "
        "the others by rank; h_kl: the same, with tokens that nearly stand for each other among the first",
    )
    temperature: float = Field(
        1.0, gt=0.0, description="τ; divides both models' logits, and τ² multiplies the distance"
    )
    divergence: Literal["forward_kl", "reverse_kl"] = Field(
        "forward_kl", description="of the teacher's and the student's means, with the terms for sums that are not one"
    )
    distillation_weight: float = Field(1.0, ge=0.0, description="of the distance; not used with dynamic_scaling")
    cross_entropy_weight: float = Field(0.1, ge=0.0, description="of cross entropy; not used with dynamic_scaling")
    dynamic_scaling: bool = Field(
        False,
        description="cross entropy, and the distance times the ratio of the two over the whole step (the released default)",
    )
    top_k: int = Field(
        8192, ge=1, description="K of p_kl: so many of the teacher's tokens are compared in a group, by mean logit"
    )
    ranked_top_k: int = Field(
        8192, ge=1, description="of gold and h_kl: so many of each side's other tokens are compared by rank"
    )
    cut_ranks: bool = Field(
        False,
        description="of gold and h_kl: no more ranks than the side with fewer other tokens has, as released",
    )
    matched_weight: float = Field(
        0.6, gt=0.0, le=1.0, description="of h_kl: the least weight in W of two tokens that stand for each other"
    )
    probability_floor: float = Field(
        1e-10,
        gt=0.0,
        lt=1.0,
        description="of p_kl: added to projected probabilities inside the logarithm and to their sum; with one vocabulary it is not used",
    )
    reverse_pass: bool = Field(
        False, description="in W also what the student's tokenizer splits the teacher's tokens into, as released"
    )
    strict_pairs: bool = Field(False, description="distil only in groups of one token on either side")


@register
class XToken(StepStatistics, UsesTokenizers, Method):
    """L = w_KD L_KD + w_CE L_CE, L_KD a mean over the groups of the step, times τ².

    p_kl: D(p̂_c ‖ m_c) over the K tokens with the teacher's largest mean logits; log p̂_c the mean of log softmax_K(Z_j / τ), m_c the
    mean of softmax(z_i / τ), times W, divided by its sum over K.
    gold, h_kl: D(p̂_c ‖ q̂_c) over matched tokens + Σ_k |sort q̂_c − sort p̂_c|_k over the others; log p̂_c and log q̂_c means of
    log-probabilities over whole vocabularies.

    D(a ‖ b) = Σ a log(a / b) − a + b, so that it is zero for a = b alone.
    """

    name = "x-token"
    title = "X-Token, projected vocabularies"
    paper = "arXiv 2605.21699"
    requires = Requirements(chunkable=False)
    not_reproduced = (
        "The scale slot and the pairing of special tokens by the likeness of their names; alignment by strings; one set K for a "
        "micro-batch; a trained W; teachers weighed by a score."
    )
    Options = XTokenOptions
    space: ClassVar[Space] = {
        "form": Choice("p_kl", "gold", "h_kl"),
        "temperature": Log(0.5, 2.0),
        "divergence": Choice("forward_kl", "reverse_kl"),
        "cross_entropy_weight": Log(0.01, 1.0),
    }
    instead = "set dynamic_scaling to false"
    _tokenizers: tuple[Any, Any] | None = None
    projection: losses.SparseMap
    matched_teacher_ids: Tensor
    matched_student_ids: Tensor
    other_teacher_ids: Tensor
    other_student_ids: Tensor
    student_id_matched: Tensor

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self.needed = self.options.dynamic_scaling
        self.floor: float = self.options.probability_floor

    def use_tokenizers(self, student: Any, teacher: Any) -> None:
        self._tokenizers = student, teacher

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> None:
        """Makes W. Without tokenizers, tokens are split by the longest match."""
        if not shared.same and (shared.teacher_tokens is None or shared.student_tokens is None):
            raise InputError(
                f"methods.{self.name}: needs the bytes of both models' tokens, which are unknown here; "
                "fix: make the shared vocabulary with share_vocabulary"
            )
        found = tokenization.project_vocabulary(shared, *self._pieces(shared))
        self.use_projection(found, student_head, teacher_head, shared)
        # With one vocabulary and W the identity it would be the only difference to the divergence of the two softmaxes.
        self.floor = _TINY if shared.same else self.options.probability_floor

    def use_projection(
        self,
        found: tokenization.VocabularyProjection,
        student_head: modeling.Head,
        teacher_head: modeling.Head,
        twins: SharedVocabulary | None,
    ) -> None:
        """Keep W, and what tokens it matches."""
        import torch

        device = student_head.weight.device
        arrays = (found.student_ids, found.teacher_ids, found.weights)
        ids, teacher_ids, weights = (torch.from_numpy(array).to(device) for array in arrays)
        self.projection = losses.SparseMap(ids, teacher_ids, weights, teacher_head.size)
        pairs = found.matched(1.0 if self.options.form == "gold" else self.options.matched_weight, twins)
        self.matched_teacher_ids, self.matched_student_ids = (torch.from_numpy(side).to(device) for side in pairs)
        of_teacher = torch.ones(teacher_head.size, dtype=torch.bool, device=device)
        of_student = torch.ones(student_head.size, dtype=torch.bool, device=device)
        of_teacher[self.matched_teacher_ids] = of_student[self.matched_student_ids] = False
        self.other_teacher_ids, self.other_student_ids = (
            side.nonzero().squeeze(-1) for side in (of_teacher, of_student)
        )
        # Of p_kl there is one distance, which depends on all of the student's tokens.
        self.student_id_matched = ~of_student if self.options.form != "p_kl" else torch.ones_like(of_student)

    def _pieces(self, shared: SharedVocabulary) -> tuple[tokenization.Pieces, tokenization.Pieces | None]:
        """How the teacher splits bytes, and for the reverse pass the student."""
        sides = shared.teacher_tokens or (), shared.student_tokens or ()
        if self._tokenizers is None:
            found: list[tokenization.Pieces] = [tokenization.LongestMatch(tokens) for tokens in sides]
        else:
            both = zip(reversed(self._tokenizers), sides, strict=True)
            found = [tokenization.TokenizerPieces(tokenizer, tokens) for tokenizer, tokens in both]
        return found[0], found[1] if self.options.reverse_pass else None

    def precompute_step(self, batches: Sequence[TokenBatch], total: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """For each batch [tokens, 1]: |L_CE / L_KD| of the whole step, by which the distance is multiplied."""
        import torch

        sums = torch.zeros(4, dtype=torch.float64, device=batches[0].student.labels.device)
        for batch in batches:
            terms = self.terms(batch)
            batch.metrics.clear()
            entropy, others = terms["cross_entropy"], [terms[name] for name in self._distance_terms]
            distance = torch.stack([term.total for term in others]).sum()
            sums += torch.stack([entropy.total, entropy.normalizer, distance, others[0].normalizer]).double()
        entropy_sum, labelled, distance_sum, groups = total(sums).unbind()
        means = entropy_sum / labelled.clamp_min(1.0), distance_sum / groups.clamp_min(1.0)
        scale = torch.where(means[1] != 0, (means[0] / means[1]).abs(), 0.0).float()
        return [scale.expand(len(batch.student.labels), 1) for batch in batches]

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return self._counts(batch, self._kept(*losses.groups_of(batch)))

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        student, teacher = losses.groups_of(batch)
        kept = self._kept(student, teacher)
        log_p = self._teacher_means(batch, teacher)
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        own = self._student_means(batch.student.head.without_padding(logits), student)
        both = losses.distances_over_groups(self._distances, log_p, own, kept, self.student_id_matched)
        del log_p, own  # before the cross entropy makes its own tensor of that size
        scale = self.options.temperature**2 * self._dynamic_scale(batch)
        sums = dict(zip(self._distance_terms, (value * scale for value in both), strict=False))
        sums |= {
            "cross_entropy": cross_entropy(batch, logits).total,
            "grouped_share": (student.sizes() * kept).sum().float(),
        }
        return {name: LossTerm(sums[name], count) for name, count in self._counts(batch, kept).items()}

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        distance = means[self._distance_terms[0]]
        for name in self._distance_terms[1:]:
            distance = distance + means[name]
        if self.options.dynamic_scaling:
            return distance + means["cross_entropy"]
        weights = self.options.distillation_weight, self.options.cross_entropy_weight
        return weights[0] * distance + weights[1] * means["cross_entropy"]

    @property
    def _distance_terms(self) -> tuple[str, ...]:
        return ("projected",) if self.options.form == "p_kl" else ("matched", "unmatched")

    def _dynamic_scale(self, batch: TokenBatch) -> Any:
        """The factor of the step, and as a metric; 1 with static weights, and while it is being found."""
        scale = batch.student.per_token_statistics
        if scale is None or not self.options.dynamic_scaling:
            return 1.0
        factor = scale[:1].sum()
        batch.metrics["dynamic_scale"] = LossTerm(factor, factor.new_full((), float(len(scale) > 0)))
        return factor

    def _kept(self, student: losses.ByteGroups, teacher: losses.ByteGroups) -> Tensor:
        """The groups that are distilled, bool [limit]."""
        return losses.matched_groups(student, teacher, strict=self.options.strict_pairs)

    def _counts(self, batch: TokenBatch, kept: Tensor) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        groups = kept.sum().to(labelled.dtype)
        return {"cross_entropy": labelled, "grouped_share": labelled, **dict.fromkeys(self._distance_terms, groups)}

    def _teacher_means(self, batch: TokenBatch, groups: losses.ByteGroups) -> Tensor:
        """log p̂ [limit, teacher tokens], for p_kl minus infinity outside each group's K."""
        import torch

        with torch.no_grad():
            logits = batch.teacher.head.logits(batch.teacher.hidden)
            count = self.options.top_k if self.options.form == "p_kl" else logits.shape[-1]
            return losses.mean_log_probabilities_of_largest(logits, groups, self.options.temperature, count)

    def _student_means(self, logits: Tensor, groups: losses.ByteGroups) -> Tensor:
        """The mean of probabilities for p_kl, of log-probabilities for the others [limit, student tokens]."""
        if self.options.form == "p_kl":
            return losses.mean_probabilities(logits, groups, self.options.temperature)
        return losses.mean_log_probabilities(logits, groups, self.options.temperature)

    def _distances(self, log_p: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """(of projected or matched tokens, of the other ones), both [groups], of means [groups, vocabulary]."""
        reverse = self.options.divergence == "reverse_kl"
        if self.options.form == "p_kl":
            distance = losses.projected_divergence(log_p, own, self.projection, floor=self.floor, reverse=reverse)
            return distance, own.new_zeros(len(own))
        sides = log_p[:, self.matched_teacher_ids], own[:, self.matched_student_ids]
        others = log_p[:, self.other_teacher_ids], own[:, self.other_student_ids]
        largest = self.options.ranked_top_k
        if self.options.cut_ranks:
            largest = min(largest, *(side.shape[-1] for side in others))
        return losses.generalised_kl(*sides, reverse=reverse), losses.sorted_l1(*others, largest)

"""On-policy distillation between any two vocabularies: byte groups, which both models can say the probability of, are the actions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dskd import losses
from dskd.losses.tokens import LossTerm, SideTokens, TokenBatch
from dskd.methods.base import ResponseStatistics, register
from dskd.methods.on_policy import PolicyGradient, PolicyGradientOptions, by_chunks, log_old, own_log_q, sampled
from dskd.methods.space import Space, Uniform

if TYPE_CHECKING:
    from torch import Tensor

# Columns of per_token_statistics.
ADVANTAGE, GROUPED, WEIGHT = 0, 1, 2
_TEACHER_ROWS = 1_024  # of the teacher's logits at a time, of which one number a row is kept


class OpdChunksOptions(PolicyGradientOptions):
    """Defaults: plain on-policy distillation; gamma above 0 weighs groups as `iw-opd` weighs tokens."""

    gamma: float = Field(0.0, ge=0.0, description="γ of importance weights of the groups; 0: none")
    normaliser: Literal["all_but_last", "all"] = Field(
        "all_but_last", description="D, by which earlier |A| are divided: without the last group of a response, or all"
    )


@register
class OpdChunks(ResponseStatistics, PolicyGradient):
    """`PolicyGradient` in which all tokens of a byte group c have A_c = Σ_(j ∈ c) log p_j(Y_j) − Σ_(i ∈ c) log q_old,i(y_i).

    Each group of the student's text is an action whose log-likelihood is the sum over its tokens. N are the student's sampled tokens
    in groups. With one vocabulary each group is a token, and this is `opd`.
    """

    name = "opd-chunks"
    title = "on-policy distillation over byte groups"
    paper = "ours, after Thinking Machines 2025 (blog)"
    requires = replace(PolicyGradient.requires, vocabulary="any")
    Options = OpdChunksOptions
    space: ClassVar[Space] = {"gamma": Uniform(0.0, 1.0)}

    def response_statistics(self, batch: TokenBatch) -> Tensor:
        """[tokens, 3]: A of each token's group times its weight, whether it is in a group, and the weight."""
        import torch

        temperature = self.options.temperature
        student, teacher = losses.groups_of(batch)
        own = by_chunks(batch, lambda part: log_old(part, own_log_q(part, temperature)))
        difference = teacher.sums(_log_p(batch.teacher, temperature)) - student.sums(own)
        grouped, place = _grouped(batch)
        advantage = torch.where(grouped, difference[place], 0.0)
        weight = torch.ones_like(advantage)
        if self.options.gamma:
            first = student.first()[place]
            begins = grouped & (first == torch.arange(len(own), device=own.device))
            responses = losses.responses_of(batch.student.sizes, own.device)
            of_tokens = losses.importance_weights(
                advantage, begins, responses, self.options.gamma, self.options.normaliser
            )
            weight = torch.where(grouped, of_tokens[first], 1.0)
        return torch.stack([weight * advantage, grouped.float(), weight], -1)

    def advantages(self, batch: TokenBatch, log_q: Tensor) -> Tensor:
        return batch.student.per_token_statistics[:, ADVANTAGE]

    def counted(self, batch: TokenBatch) -> Tensor:
        statistics = batch.student.per_token_statistics
        grouped = _grouped(batch)[0] if statistics is None else statistics[:, GROUPED] > 0
        return sampled(batch) & grouped

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        terms, own = super().terms(batch), sampled(batch)
        kept = terms["policy_gradient"].normalizer
        batch.metrics["grouped_share"] = LossTerm(kept, own.sum().float())
        if self.options.gamma:
            weights = batch.student.per_token_statistics[:, WEIGHT].masked_fill(~self.counted(batch), 0.0)
            batch.metrics["importance_weight"] = LossTerm(weights.sum(), kept)
        return terms


def _grouped(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """(whether the teacher has a student token's group, bool [tokens]; the number of that group, 0 where there is none)."""
    student, teacher = losses.groups_of(batch)
    matched, numbers = losses.matched_groups(student, teacher, strict=False), batch.student.groups
    # A group that only one side can have is beyond the limit of both.
    inside = (numbers >= 0) & (numbers < len(matched))
    place = numbers.masked_fill(~inside, 0)
    return (inside & matched[place] if len(matched) else inside), place


def _log_p(teacher: SideTokens, temperature: float) -> Tensor:
    """log p of the teacher's own labels, float32 [tokens]."""
    import torch

    if teacher.label_log_probabilities is not None:
        return teacher.label_log_probabilities.float()
    parts = zip(teacher.hidden.split(_TEACHER_ROWS), teacher.labels.split(_TEACHER_ROWS), strict=True)
    found = [
        losses.own_log_probabilities(teacher.head.logits(some), of_some, temperature)[0] for some, of_some in parts
    ]
    return torch.cat(found) if found else teacher.labels.new_zeros(0).float()

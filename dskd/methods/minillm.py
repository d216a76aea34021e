"""MiniLLM (arXiv 2306.08543): the reverse divergence of whole texts, by policy gradient on text that the student writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    Method,
    Options,
    Requirements,
    StepStatistics,
    cross_entropy,
    labelled_count,
    logits_of_teacher,
    predictions_of_teacher,
    register,
)
from dskd.methods.space import Choice, Log, Space, Uniform

if TYPE_CHECKING:
    from torch import Tensor

# Columns of SideTokens.per_token_statistics.
ADVANTAGE, LOG_SAMPLED = 0, 1


class PolicyGradientOptions(Options):
    """Defaults are the published runs'."""

    teacher_mix: float = Field(
        0.2, ge=0.0, lt=1.0, description="α, the teacher's share in the distribution that text is sampled from"
    )
    discount: float = Field(0.95, ge=0.0, le=1.0, description="γ of the rewards that follow a token")
    reward_scaling: float = Field(0.5, gt=0.0, description="c, which divides log p − log q")
    reward_clip: float = Field(100.0, gt=0.0, description="the largest reward of a token, either sign")
    clip_range: float = Field(0.2, gt=0.0, lt=1.0, description="ε of the clipped importance ratio")
    data_weight: float = Field(1.0, ge=0.0, description="of the loss on the data's text (lm-coef)")
    kd_rate: float = Field(
        0.5, ge=0.0, le=1.0, description="share of distillation in that loss, the rest is cross entropy"
    )


@register
class MiniLLM(StepStatistics, Method):
    """L = L_PG + L_single + w [(1 − ρ) L_CE + ρ L_KD] (docs/rivals.md): two terms on sampled text and two on the data's.

    Rewards are a token's log p − log q, and ratios q / ((1 − α) q + α p); both q below are those of the weights that wrote the text,
    where these are older than the step. Returns are discounted, divided by the tokens that are left, and whitened over all sampled
    tokens of the optimizer step: the advantages. They are found before the step, so every term is a sum over tokens.
    """

    name = "minillm"
    title = "MiniLLM"
    paper = "arXiv 2306.08543"
    requires = Requirements(vocabulary="same", on_policy="always", written_statistics="log_probabilities")
    not_reproduced = (
        "Four passes over the same 256 texts: each is used for one step, so without staleness the clipping acts on the teacher's share "
        "alone. "
        "The second corpus: the loss on the data's text takes its place."
    )
    Options = PolicyGradientOptions
    # The paper has no discount. teacher_mix changes what samples, so it is no option to tune.
    space: ClassVar[Space] = {
        "discount": Choice(0.0, 0.95, 1.0),
        "data_weight": Log(0.1, 3.0),
        "kd_rate": Uniform(0.0, 1.0),
    }

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self.requires = replace(
            self.requires, teacher_mix_in_alpha=self.options.teacher_mix, mix_in_offpolicy=self.options.data_weight > 0
        )

    def precompute_step(self, batches: Sequence[TokenBatch], total: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """For each batch [tokens, 2]: advantages, 0 for text of the data, and log p̃ of the labels, by which they were sampled."""
        import torch

        found = []
        sums = torch.zeros(3, dtype=torch.float64, device=batches[0].student.labels.device)
        for batch in batches:
            log_q, log_p = _log_probabilities(batch)
            sampled = _sampled(batch)
            if batch.student.written_log_probabilities is not None:  # by older weights
                paired = torch.zeros_like(sampled).index_fill(0, batch.student.pairs, True)
                log_q = torch.where(sampled & paired, batch.student.written_log_probabilities.double(), log_q)
            clip = self.options.reward_clip
            reward = ((log_p - log_q) / self.options.reward_scaling).clamp(-clip, clip)
            returns = _mean_returns(reward, batch, self.options.discount).masked_fill(~sampled, 0.0)
            sums += torch.stack([sampled.sum(), returns.sum(), returns.square().sum()])
            mixed, share = log_q, self.options.teacher_mix
            if share:
                mixed = torch.logaddexp(math.log1p(-share) + log_q, math.log(share) + log_p)
            found.append((returns, mixed, sampled))
        count, first, second = total(sums).unbind()
        mean = first / count.clamp_min(1.0)
        deviation = (second / count.clamp_min(1.0) - mean.square()).clamp_min(0.0).add(1e-8).sqrt()
        return [
            torch.stack([((returns - mean) / deviation).masked_fill(~sampled, 0.0), mixed], -1).float()
            for returns, mixed, sampled in found
        ]

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        padded = batch.student.head.logits(batch.student.hidden, padded=True)
        logits = batch.student.head.without_padding(batch.student.at_pairs(padded))
        teacher_logits = logits_of_teacher(batch)
        predictions_of_teacher(batch, teacher_logits)
        labels = batch.student.labels[batch.student.pairs]
        statistics = batch.student.per_token_statistics[batch.student.pairs]
        sampled = _sampled(batch)[batch.student.pairs]
        log_q = -torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
        ratio = (log_q - statistics[:, LOG_SAMPLED]).exp()
        clipped = ratio.clamp(1 - self.options.clip_range, 1 + self.options.clip_range)
        advantage = statistics[:, ADVANTAGE]
        surrogate = torch.maximum(-advantage * ratio, -advantage * clipped)
        counts = self.counts(batch)
        sums = {
            "policy_gradient": surrogate.masked_fill(~sampled, 0.0).sum(),
            "single_step": losses.reverse_kl(teacher_logits, logits).masked_fill(~sampled, 0.0).sum(),
            "cross_entropy": cross_entropy(batch, padded).total,
            "distillation": losses.forward_kl(teacher_logits, logits).masked_fill(sampled, 0.0).sum(),
        }
        outside = sampled & (ratio != clipped)
        batch.metrics["clipped_share"] = LossTerm(outside.sum().float(), counts["policy_gradient"])
        return {name: LossTerm(value, counts[name]) for name, value in sums.items()}

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        sampled = _sampled(batch)
        labelled = labelled_count(batch)
        paired = sampled[batch.student.pairs].sum().float()
        return {
            "policy_gradient": paired,
            "single_step": paired,
            "cross_entropy": labelled - sampled.sum().float(),
            "distillation": labelled.new_full((), float(len(batch.student.pairs))) - paired,
        }

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        rate = self.options.kd_rate
        of_data = (1 - rate) * means["cross_entropy"] + rate * means["distillation"]
        return means["policy_gradient"] + means["single_step"] + self.options.data_weight * of_data


def _sampled(batch: TokenBatch) -> Tensor:
    """Of each labelled token, whether the student wrote it [tokens]; none where nobody says so."""
    student = batch.student
    return student.labels.new_zeros(len(student.labels)).bool() if student.sampled is None else student.sampled


def _log_probabilities(batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """log q and log p of the student's labels, float64 [tokens], a chunk of tokens at a time; equal where a token has no pair."""
    import torch

    log_q, log_p = [], []
    for part in losses.chunks(batch, losses.chunk_size(batch, None)):
        of_student = part.student.head.logits(part.student.hidden).float().log_softmax(-1)
        log_q.append(of_student.gather(-1, part.student.labels.unsqueeze(-1)).squeeze(-1).double())
        of_teacher = part.teacher.head.logits(part.teacher.hidden[part.teacher.pairs]).float().log_softmax(-1)
        labels = part.student.labels[part.student.pairs].unsqueeze(-1)
        log_p.append(log_q[-1].index_copy(0, part.student.pairs, of_teacher.gather(-1, labels).squeeze(-1).double()))
    return torch.cat(log_q), torch.cat(log_p)


def _mean_returns(reward: Tensor, batch: TokenBatch, discount: float) -> Tensor:
    """(1 / L_t) Σ_{k ≥ t} γ^(k−t) r_k within each example [tokens], L_t the tokens from t to its end."""
    import torch

    sizes = batch.student.sizes.cpu()
    if not len(reward):
        return reward
    width = int(sizes.max())
    example = torch.arange(len(sizes)).repeat_interleave(sizes)
    place = torch.arange(len(reward)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    left = sizes.repeat_interleave(sizes) - place
    flat = (example * width + place).to(reward.device)
    padded = reward.new_zeros(len(sizes) * width).index_copy(0, flat, reward).view(len(sizes), width)
    apart = torch.arange(width, device=reward.device).unsqueeze(1) - torch.arange(width, device=reward.device)
    weights = torch.where(apart >= 0, torch.full_like(apart, discount, dtype=reward.dtype) ** apart.clamp_min(0), 0.0)
    return (padded @ weights).flatten()[flat] / left.to(reward.device)

"""IW-OPD (arXiv 2606.22600): on-policy distillation in which tokens count less the further the student has left the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import ResponseStatistics, register
from dskd.methods.on_policy import (
    PolicyGradient,
    PolicyGradientOptions,
    by_chunks,
    log_old,
    log_p_of_text,
    own_log_q,
)
from dskd.methods.space import Choice, Space, Uniform

if TYPE_CHECKING:
    from torch import Tensor


class IwOpdOptions(PolicyGradientOptions):
    """Defaults are the authors'; TRL's are normaliser `all` and form `log_likelihood`."""

    gamma: float = Field(0.5, ge=0.0, description="γ; the first token of a response weighs 1 + γ")
    normaliser: Literal["all_but_last", "all"] = Field(
        "all_but_last",
        description="D, by which earlier |A| are divided: without the last token (authors), or all (TRL)",
    )
    form: Literal["clipped", "log_likelihood"] = Field(
        "clipped", description="clipped importance ratio (authors), or −A log q without ratio and clip (TRL)"
    )


@register
class ImportanceWeightedOpd(ResponseStatistics, PolicyGradient):
    """`PolicyGradient` with w_t A_t, A_t = log p(y_t) − log q_old(y_t) and w_t = 1 + γ (1 − Σ_(u < t) |A_u| / D) (docs/rivals.md)."""

    name = "iw-opd"
    title = "importance-weighted on-policy distillation"
    paper = "arXiv 2606.22600"
    not_reproduced = "The paper's text was not to be had: formula and settings are the authors' blog's and TRL's."
    Options = IwOpdOptions
    space: ClassVar[Space] = {"gamma": Uniform(0.0, 1.0), "normaliser": Choice("all_but_last", "all")}

    def response_statistics(self, batch: TokenBatch) -> Tensor:
        """[tokens, 2]: w_t A_t, and w_t."""
        import torch

        def log_ratio(part: TokenBatch) -> Tensor:
            old = log_old(part, own_log_q(part, self.options.temperature))
            return log_p_of_text(part, old, self.options.temperature) - old

        ratios = by_chunks(batch, log_ratio)
        responses = losses.responses_of(batch.student.sizes, ratios.device)
        every = torch.ones_like(responses, dtype=torch.bool)
        weights = losses.importance_weights(ratios, every, responses, self.options.gamma, self.options.normaliser)
        return torch.stack([weights * ratios, weights], -1)

    def advantages(self, batch: TokenBatch, log_q: Tensor) -> Tensor:
        return batch.student.per_token_statistics[:, 0]

    def surrogate(self, log_q: Tensor, log_old: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
        if self.options.form == "clipped":
            return super().surrogate(log_q, log_old, advantage)
        return losses.log_likelihood_surrogate(log_q, advantage), advantage.new_zeros(advantage.shape).bool()

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        terms = super().terms(batch)
        weights = batch.student.per_token_statistics[:, 1].masked_fill(~self.counted(batch), 0.0)
        batch.metrics["importance_weight"] = LossTerm(weights.sum(), terms["policy_gradient"].normalizer)
        return terms

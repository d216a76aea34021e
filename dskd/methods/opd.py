"""On-policy distillation from sampled tokens: the teacher says how probable each token of the student's text is, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

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
    sampled_pairs,
)
from dskd.methods.space import Choice, Space

if TYPE_CHECKING:
    from torch import Tensor

# What the refused combinations do on average (dskd/losses/estimators.py).
_REFUSED = {
    ("k1", "differentiated"): "the gradient of k1 is zero on average; fix: form: policy_gradient",
    ("k3", "policy_gradient"): "this raises KL(p ‖ q) by as much as it lowers KL(q ‖ p); fix: estimator: k1",
    ("abs", "policy_gradient"): "this makes every token less probable, whatever the teacher says; fix: estimator: k1",
    ("k2", "policy_gradient"): "this makes every token less probable, whatever the teacher says; fix: estimator: k1",
    ("k1+", "policy_gradient"): "the two forms of k1+ are those of k1 and of k2; fix: estimator: k1",
    ("k3+", "policy_gradient"): "this raises KL(p ‖ q) by as much as it lowers KL(q ‖ p); fix: estimator: k1",
}


class OpdOptions(PolicyGradientOptions):
    """Defaults: no future terms, no bound on the advantage, the estimator and the form that have the gradient of KL(q ‖ p)."""

    form: Literal["policy_gradient", "differentiated"] = Field(
        "policy_gradient",
        description="policy_gradient: minus the estimate is the advantage; differentiated: the estimate is the loss",
    )
    estimator: Literal["k1", "abs", "k2", "k3", "k1+", "k3+"] = Field(
        "k1",
        description="of KL(q ‖ p) from d = log q − log p of a token: d, |d|, d² / 2, e^(−d) + d − 1; +: with k2's gradient",
    )
    advantage_limit: float | None = Field(None, gt=0.0, description="the largest advantage, either sign (verl: 10)")
    discount: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="γ of the log-ratios that follow a token; 1 is the gradient of the whole text's KL",
    )

    @model_validator(mode="after")
    def _has_the_gradient_of_a_divergence(self) -> OpdOptions:
        if problem := _REFUSED.get((self.estimator, self.form)):
            raise ValueError(f"estimator {self.estimator} with form {self.form}: {problem}")
        return self


@register
class OnPolicyDistillation(ResponseStatistics, PolicyGradient):
    """`PolicyGradient` with A_t = Σ_(k ≥ t) γ^(k − t) [log p(y_k) − log q_old(y_k)], γ = 0 by default (docs/rivals.md)."""

    name = "opd"
    title = "on-policy distillation, sampled tokens"
    paper = "Thinking Machines 2025 (blog), arXiv 2306.13649"
    not_reproduced = "A reward besides the teacher, and the correction of the sampling engine's log-probabilities."
    Options = OpdOptions
    # The temperature is that of the rollouts, and the same for all trials.
    space: ClassVar[Space] = {"discount": Choice(0.0, 0.9, 1.0), "advantage_limit": Choice(None, 10.0, 5.0)}

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        if self.options.form == "differentiated":
            self.requires = replace(self.requires, written_statistics="none")

    def response_statistics(self, batch: TokenBatch) -> Tensor | None:
        if not self.options.discount or self.options.form == "differentiated":
            return None
        ratios = by_chunks(batch, lambda part: self._log_ratio(part, own_log_q(part, self.options.temperature)))
        responses = losses.responses_of(batch.student.sizes, ratios.device)
        return losses.discounted_sums(ratios, responses, self.options.discount).float().unsqueeze(-1)

    def _log_ratio(self, batch: TokenBatch, log_q: Tensor) -> Tensor:
        """log p(y_t) − log q_old(y_t) [tokens]; 0 where the teacher does not have the token."""
        temperature = self.options.temperature
        old = log_old(batch, log_q)
        return log_p_of_text(batch, old, temperature) - old

    def advantages(self, batch: TokenBatch, log_q: Tensor) -> Tensor:
        statistics = batch.student.per_token_statistics
        found = statistics[:, 0] if self.options.discount else self._log_ratio(batch, log_q)
        limit = self.options.advantage_limit
        return found if limit is None else found.clamp(-limit, limit)

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        if self.options.form == "policy_gradient":
            return super().terms(batch)
        log_q, kept = own_log_q(batch, self.options.temperature), sampled_pairs(batch)
        difference = log_q - log_p_of_text(batch, log_q.detach(), self.options.temperature)
        loss = losses.estimate(self.options.estimator, difference)
        count = kept.sum().float()
        batch.metrics["advantage"] = LossTerm((-difference.detach()).masked_fill(~kept, 0.0).sum(), count)
        return {"policy_gradient": LossTerm(loss.masked_fill(~kept, 0.0).sum(), count)}

"""On-policy distillation on a few tokens of the vocabulary at each position: the teacher's most probable ones (arXiv 2603.25562)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    DivergenceName,
    DivergenceOptions,
    Method,
    Requirements,
    ResponseStatistics,
    UsesTokenizers,
    register,
)
from dskd.methods.on_policy import by_chunks, distributions, sampled, sampled_pairs
from dskd.methods.space import Choice, Space

if TYPE_CHECKING:
    from torch import Tensor

_TAILS = ("sampled_tail", "unbiased_tail")
_LARGEST_LOG_RATIO = 20.0
_ROUNDING = 1e-9


class TopKOptions(DivergenceOptions):
    """Defaults are those of the authors' command, but for its share of tokens with high entropy."""

    temperature: float = Field(1.0, gt=0.0, description="τ; divides both models' logits")
    top_k: int = Field(
        32, gt=0, description="K, tokens of each list; of teacher outputs top_k at most as many as those have"
    )
    support: Literal["teacher", "student", "union", "sampled", "teacher_and_sampled"] = Field(
        "teacher",
        description="S, the tokens compared: the most probable of one model or of both, and the sampled token",
    )
    remainder: Literal["renormalised", "none", "one_outcome", "sampled_tail", "unbiased_tail"] = Field(
        "renormalised",
        description="probability outside S: both models' renormalised over S (paper); left as it is (none); one more outcome (TRL); "
        "or by the sampled token, as released or without its bias",
    )
    divergence: DivergenceName = Field(
        "reverse_kl", description="of the teacher's and the student's distributions over S"
    )
    clip_log_ratio: float | None = Field(
        None, gt=0.0, description="bound of log q − log p of a token, in reverse_kl (release: 5, off)"
    )
    log_probability_floor: float | None = Field(
        None, lt=0.0, description="smaller log-probabilities count as it, in forward_kl without remainder (verl: -10)"
    )
    loss_limit: float | None = Field(None, gt=0.0, description="bounds such a loss of a token to 0 and this (verl: 10)")
    entropy_share: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        description="learn from this share of each response's tokens alone, those of the highest entropy of q",
    )
    masked_texts: tuple[str, ...] = Field(
        (),
        description="leave out the first occurrence in a response of each token of these (release: '<', 'think', '<|im_end|>')",
    )

    @model_validator(mode="after")
    def _go_together(self) -> TopKOptions:
        if self.remainder == "none" and self.divergence not in ("reverse_kl", "forward_kl"):
            raise ValueError(
                f"remainder: {self.divergence} is not defined without one; fix: renormalised or one_outcome, or reverse_kl"
            )
        if self.remainder in _TAILS and self.divergence != "reverse_kl":
            raise ValueError(f"remainder: {self.remainder} estimates reverse_kl; fix: divergence: reverse_kl")
        if self.clip_log_ratio is not None and self.divergence != "reverse_kl":
            raise ValueError("clip_log_ratio: belongs to reverse_kl; fix: leave it out")
        verl = self.divergence == "forward_kl" and self.remainder == "none"
        if not verl and (self.log_probability_floor is not None or self.loss_limit is not None):
            raise ValueError(
                "log_probability_floor, loss_limit: belong to forward_kl with remainder none; fix: leave them out"
            )
        one = self.support == "sampled" or (self.top_k == 1 and self.support in ("teacher", "student"))
        if one and self.remainder == "renormalised":
            raise ValueError(
                "remainder: one token, renormalised, has probability 1 in both models and no gradient; fix: remainder: one_outcome"
            )
        return self


@register
class TopKOpd(ResponseStatistics, UsesTokenizers, Method):
    """L = (1/M) Σ_t Σ_(v ∈ S_t) q̂(v) (log q̂(v) − log p̂(v)) over M sampled tokens, q̂ and p̂ renormalised over S_t (docs/rivals.md)."""

    name = "opd-top-k"
    title = "on-policy distillation, the teacher's top K"
    paper = "arXiv 2603.25562"
    requires = Requirements(
        vocabulary="same", teacher_outputs=("hidden_states", "top_k"), on_policy="always", exact_sampling=False
    )
    not_reproduced = "The importance weight of the sampled tail alone, for text of a sampler with another precision."
    Options = TopKOptions
    # The authors' command learns from 20 % of the tokens; whether their tables do is not known.
    space: ClassVar[Space] = {
        "top_k": Choice(8, 32, 128),
        "remainder": Choice("renormalised", "one_outcome"),
        "divergence": Choice("reverse_kl", "forward_kl"),
        "entropy_share": Choice(None, 0.5, 0.2),
    }
    masked_ids: tuple[int, ...] = ()

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        chosen = self.options
        if chosen.remainder in _TAILS:
            self.requires = replace(self.requires, exact_sampling=True, written_statistics="log_probabilities")
        if chosen.remainder in _TAILS or chosen.support != "teacher":
            self.requires = replace(
                self.requires,
                teacher_outputs=("hidden_states",),
                outputs_with_options={"top_k": "support: teacher, and a remainder without a tail"},
            )

    def use_tokenizers(self, student: Any, teacher: Any) -> None:
        encoded = [student.encode(text, add_special_tokens=False) for text in self.options.masked_texts]
        self.masked_ids = tuple(sorted({token for ids in encoded for token in ids}))

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        temperature, pairs = self.options.temperature, batch.student.pairs
        student, teacher = distributions(batch, temperature)
        ids = self._support(student, teacher, batch)
        values = self._distance(student, teacher, ids)
        if self.options.remainder in _TAILS:
            values = values + self._tail(student, teacher, ids, batch)
        kept = self._kept(batch)[pairs]
        return {"distillation": LossTerm(values.masked_fill(~kept, 0.0).sum(), kept.sum().float())}

    def _support(
        self, student: losses.Distribution, teacher: losses.Distribution | losses.KnownTokens, batch: TokenBatch
    ) -> Tensor:
        """S [pairs, ids]."""
        kind, count = self.options.support, self.options.top_k
        sampled_token = batch.student.labels[batch.student.pairs].unsqueeze(-1)
        if kind == "sampled":
            return sampled_token
        if kind == "student":
            return student.top(count)
        found = teacher.top(count)
        if kind == "teacher":
            return found
        if kind == "teacher_and_sampled":
            return losses.union(found, sampled_token)
        own = student.top(count)
        shared = (losses.among(own, found) >= 0).float().mean(-1)
        kept = self._kept(batch)[batch.student.pairs]
        batch.metrics["overlap"] = LossTerm(shared.masked_fill(~kept, 0.0).sum(), kept.sum().float())
        return losses.union(own, found)

    def _distance(
        self, student: losses.Distribution, teacher: losses.Distribution | losses.KnownTokens, ids: Tensor
    ) -> Tensor:
        """The divergence over S [pairs]."""
        options = self.options
        if options.remainder not in ("renormalised", "one_outcome"):
            return self._distance_without_remainder(student.at(ids), teacher.at(ids), ids >= 0)
        log_p = losses.restricted(teacher, ids, options.remainder)
        log_q = losses.restricted(student, ids, options.remainder)
        if options.clip_log_ratio is None:
            found: Tensor = options.distance(temperature=1.0)(log_p, log_q)
            return found
        return self._reverse(log_q, log_p, log_q > -float("inf"))

    def _distance_without_remainder(self, log_q: Tensor, log_p: Tensor, given: Tensor) -> Tensor:
        """Of probabilities that do not add up to one [pairs]; `given`: the places of S that hold a token."""
        options = self.options
        if options.divergence == "reverse_kl":
            found = self._reverse(log_q, log_p, given)
            if (
                options.remainder == "unbiased_tail"
            ):  # the gradient of q (log q − log p) − q is that of q times log q − log p
                found = found + (log_p.exp() - log_q.exp()).sum(-1)
            return found
        log_q, log_p = log_q.masked_fill(~given, 0.0), log_p.masked_fill(~given, 0.0)
        if options.log_probability_floor is not None:
            log_q, log_p = (side.clamp_min(options.log_probability_floor) for side in (log_q, log_p))
        found = (log_p.exp() * (log_p - log_q)).masked_fill(~given, 0.0).sum(-1)
        return found if options.loss_limit is None else found.clamp(0.0, options.loss_limit)

    def _reverse(self, log_q: Tensor, log_p: Tensor, given: Tensor) -> Tensor:
        """Σ q (log q − log p), the difference within its bound [pairs]."""
        ratio = log_q.masked_fill(~given, 0.0) - log_p.masked_fill(~given, 0.0)
        if self.options.clip_log_ratio is not None:
            ratio = ratio.clamp(-self.options.clip_log_ratio, self.options.clip_log_ratio)
        return (log_q.exp() * ratio).sum(-1)

    def _tail(
        self,
        student: losses.Distribution,
        teacher: losses.Distribution | losses.KnownTokens,
        ids: Tensor,
        batch: TokenBatch,
    ) -> Tensor:
        """(log q(y) − log p(y)) q(y) / q_old(y) where y is not in S, and 0 elsewhere [pairs]; the gradient is that of the ratio."""
        pairs = batch.student.pairs
        label = batch.student.labels[pairs].unsqueeze(-1)
        log_q, log_p = student.at(label).squeeze(-1), teacher.at(label).squeeze(-1)
        own, written = log_q.detach(), batch.student.written_log_probabilities
        old = own if written is None else written[pairs].float()
        ratio = (log_q - old).clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO).exp()
        return ((own - log_p) * ratio).masked_fill((ids == label).any(-1), 0.0)

    def _kept(self, batch: TokenBatch) -> Tensor:
        """The M tokens, bool [tokens]."""
        found = sampled_pairs(batch)
        statistics = batch.student.per_token_statistics
        return found if statistics is None else found & (statistics[:, 0] > 0)

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        if batch.student.per_token_statistics is not None or not self._chooses:
            return {"distillation": self._kept(batch).sum().float()}
        # How many each response keeps does not depend on which.
        able = self._able(batch)
        responses = losses.responses_of(batch.student.sizes, able.device)
        numbers = self._number(losses.over_responses(able.long(), responses, "sum"))
        begins = losses.first_tokens(responses)
        own = begins == begins.new_ones(len(begins)).cumsum(0) - 1
        return {"distillation": numbers.masked_fill(~own, 0).sum().float()}

    @property
    def _chooses(self) -> bool:
        """Whether it learns from some of the sampled tokens alone."""
        return self.options.entropy_share is not None or bool(self.masked_ids)

    def _number(self, able: Tensor) -> Tensor:
        """How many tokens are kept of so many."""
        share = self.options.entropy_share
        if share is None:
            return able
        return (able.double() * share + _ROUNDING).floor().long().clamp_min(1).minimum(able)

    def _able(self, batch: TokenBatch) -> Tensor:
        """The sampled tokens without the masked ones, bool [tokens]."""
        able, labels = sampled_pairs(batch), batch.student.labels
        if not self.masked_ids:
            return able
        written = sampled(batch)
        responses = losses.responses_of(batch.student.sizes, labels.device)
        for token in self.masked_ids:
            hits = (labels == token) & written
            able = able & ~(hits & (losses.sums_before(hits.float(), responses) == 0))
        return able

    def response_statistics(self, batch: TokenBatch) -> Tensor | None:
        """[tokens, 1]: 1 for the tokens that it learns from."""
        if not self._chooses:
            return None
        able, temperature = self._able(batch), self.options.temperature
        if self.options.entropy_share is None:
            return able.float().unsqueeze(-1)

        def entropy(part: TokenBatch) -> Tensor:
            return losses.Distribution.of(part.student.head.logits(part.student.hidden), temperature).entropy()

        responses = losses.responses_of(batch.student.sizes, able.device)
        return losses.lowest(-by_chunks(batch, entropy), responses, able, self._number).float().unsqueeze(-1)

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor:
        return self._kept(batch).sum().float()

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        return means["distillation"]

"""On-policy distillation that compares the whole next-token distributions, not the sampled token alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import DivergenceName, DivergenceOptions, Method, Requirements, logits_of_teacher, register
from dskd.methods.on_policy import sampled_pairs
from dskd.methods.space import Choice, Log, Space

if TYPE_CHECKING:
    from torch import Tensor


class OpdFullOptions(DivergenceOptions):
    """Reverse KL at temperature 1; js_divergence with js_beta is TRL's generalised one."""

    temperature: float = Field(1.0, gt=0.0, description="τ; divides both models' logits in the divergence")
    divergence: DivergenceName = Field("reverse_kl", description="of the teacher's and the student's distributions")


@register
class FullOpd(Method):
    """L = (1/N) Σ_t D(p_t, q_t) over the N tokens that the student sampled; the gradient does not pass through the sampling.

    `gkd` on the student's text alone, but that texts of the data, which stand in for unusable samples, have no loss.
    """

    name = "opd-full"
    title = "on-policy distillation, whole vocabulary"
    paper = "arXiv 2306.13649"
    requires = Requirements(vocabulary="same", on_policy="always", exact_sampling=False)
    Options = OpdFullOptions
    space: ClassVar[Space] = {
        "temperature": Log(0.5, 2.0),
        "divergence": Choice("forward_kl", "reverse_kl", "js_divergence"),
    }

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        logits = batch.student.head.logits(batch.student.at_pairs(batch.student.hidden))
        distance = self.options.distance()(logits_of_teacher(batch), logits)
        kept = sampled_pairs(batch)[batch.student.pairs]
        return {"distillation": LossTerm(distance.masked_fill(~kept, 0.0).sum(), kept.sum().float())}

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return {"distillation": sampled_pairs(batch).sum().float()}

    def covered(self, batch: TokenBatch, terms: Mapping[str, LossTerm]) -> Tensor:
        return sampled_pairs(batch).sum().float()

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        return means["distillation"]

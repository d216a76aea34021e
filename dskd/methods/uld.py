"""Universal logit distillation (Boizard et al., arXiv 2402.12030): probabilities compared by rank, for any two vocabularies."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dskd import losses
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    DistillationMethod,
    Options,
    Requirements,
    cross_entropy,
    logits_of_teacher,
    register,
    top_k_of_teacher,
)
from dskd.methods.space import Log, Space, Uniform

if TYPE_CHECKING:
    from torch import Tensor


class UniversalLogitOptions(Options):
    """Options of universal logit distillation."""

    kd_rate: float = Field(0.5, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    distillation_weight: float | None = Field(
        None,
        ge=0.0,
        description="λ of the paper's objective L_CE + λ L_W; where given, α is not looked at (paper: 1.5)",
    )
    temperature: float = Field(1.0, gt=0.0, description="τ; divides both models' logits before they are compared")


@register
class UniversalLogitDistillation(DistillationMethod):
    """L = (1 − α) L_CE + α · mean over position pairs of Σ_k |p↓_k − q↓_k| (docs/method.md), or L_CE + λ · that mean."""

    name = "uld"
    title = "universal logit distillation"
    paper = "arXiv 2402.12030"
    requires = Requirements(pairing="position", teacher_outputs=("hidden_states", "top_k"))
    not_reproduced = (
        "The mean over each answer's tokens and then over the answers of a batch: here over all tokens of a step."
    )
    Options = UniversalLogitOptions
    # The paper's L_CE + 1.5 L_W is this loss at α = 0.6, but for a factor.
    space: ClassVar[Space] = {"kd_rate": Uniform(0.3, 1.0), "temperature": Log(0.5, 2.0)}

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(batch.student.at_pairs(logits))
        temperature = self.options.temperature
        if batch.teacher.top_k_ids is not None:
            distance = losses.sorted_l1_of_top_k(top_k_of_teacher(batch)[1], student_logits, temperature)
        else:
            distance = losses.sorted_l1_of_logits(logits_of_teacher(batch), student_logits, temperature)
        weighed_by_alpha = self.options.distillation_weight is None
        return {
            "cross_entropy": self.cross_entropy(batch, logits) if weighed_by_alpha else cross_entropy(batch, logits),
            "distillation": LossTerm(distance.sum(), self.counts(batch)["distillation"]),
        }

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        if self.options.distillation_weight is not None:
            return means["cross_entropy"] + self.options.distillation_weight * means["distillation"]
        return super().objective(means)

"""G-OPD and its extrapolation ExOPD (arXiv 2602.12125): the teacher's preference over a reference model, scaled."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from dskd.losses.tokens import TokenBatch
from dskd.methods.base import register
from dskd.methods.on_policy import PolicyGradient, PolicyGradientOptions, log_old, log_p_of_text
from dskd.methods.space import Space, Uniform
from dskd.options import NOT_IDENTITY

if TYPE_CHECKING:
    from torch import Tensor


class GOpdOptions(PolicyGradientOptions):
    """Defaults are those of the authors' scripts."""

    reward_scale: float = Field(
        1.25, ge=0.0, description="λ; below 1 the student stays between reference and teacher, above it goes beyond"
    )
    # Its content is an input of the training; where it lies changes nothing.
    reference: Annotated[str | None, NOT_IDENTITY] = Field(
        None,
        description="r, a model folder or a model of the matrix with the student's vocabulary; by default the student before training",
    )


@register
class GeneralisedOpd(PolicyGradient):
    """`PolicyGradient` with A_t = λ (log p(y_t) − log r(y_t)) − (log q_old(y_t) − log r(y_t)) (docs/rivals.md).

    Its optimum is log q = λ log p + (1 − λ) log r + const; at λ = 1 it is `opd`.
    """

    name = "g-opd"
    title = "generalised on-policy distillation (ExOPD)"
    paper = "arXiv 2602.12125"
    requires = replace(PolicyGradient.requires, reference=True)
    not_reproduced = "Weights that correct the sampling engine's log-probabilities, and two teachers at a time."
    Options = GOpdOptions
    # Below 1 the student ends between the reference and the teacher; 1.5 was unstable for the authors.
    space: ClassVar[Space] = {"reward_scale": Uniform(0.5, 1.5)}

    def advantages(self, batch: TokenBatch, log_q: Tensor) -> Tensor:
        temperature = self.options.temperature
        old = log_old(batch, log_q)
        log_p = log_p_of_text(batch, old, temperature)
        assert batch.reference is not None
        log_r = batch.reference.label_log_probabilities
        assert log_r is not None
        scale = self.options.reward_scale
        return (log_p - old) + (scale - 1) * (log_p - log_r.float())

"""Generalised knowledge distillation (arXiv 2306.13649): the generalised Jensen-Shannon divergence, on the student's own text."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dskd.methods.base import DistillationOptions, DivergenceName, register
from dskd.methods.kd import KnowledgeDistillation
from dskd.methods.space import Choice, Log, Space, Uniform


class GeneralizedOptions(DistillationOptions):
    """The paper's: no cross entropy, temperature 1, β = 0.5."""

    kd_rate: float = Field(1.0, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    temperature: float = Field(1.0, gt=0.0, description="τ; divides both models' logits in the divergence")
    divergence: DivergenceName = Field(
        "js_divergence", description="of the teacher's and the student's distributions; js_beta is the paper's β"
    )


@register
class GeneralizedKnowledgeDistillation(KnowledgeDistillation):
    """L = (1/N) Σ_i JSD_β(p_i ‖ q_i) over the labels of text of which the student wrote a share λ (docs/method.md).

    λ is the training option `rollouts.share`, 0 without rollouts. The gradient passes through the mixture m = β p + (1 − β) q and
    not through the sampling.
    """

    name = "gkd"
    title = "generalised knowledge distillation"
    paper = "arXiv 2306.13649"
    not_reproduced = "The mixture with a reward, and text that the teacher writes."
    Options = GeneralizedOptions
    # The paper's divergences: forward KL, three Jensen-Shannon ones, reverse KL.
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 2.0),
        "js_beta": Choice(0.0, 0.1, 0.5, 0.9, 1.0),
    }

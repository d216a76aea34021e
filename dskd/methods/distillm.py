"""DistiLLM (arXiv 2402.03898): a skewed Kullback-Leibler divergence, on text that is in part the student's own."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from dskd.methods.base import DistillationOptions, DivergenceName, register
from dskd.methods.kd import KnowledgeDistillation
from dskd.methods.space import Choice, Log, Space, Uniform


class SkewedOptions(DistillationOptions):
    """The published runs': no cross entropy, temperature 1, the skewed forward divergence with λ = 0.1."""

    kd_rate: float = Field(1.0, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    temperature: float = Field(1.0, gt=0.0, description="τ; divides both models' logits in the divergence")
    divergence: DivergenceName = Field(
        "skewed_forward_kl", description="of the teacher's and the student's distributions; or skewed_reverse_kl"
    )


@register
class DistiLLM(KnowledgeDistillation):
    """L = (1 − α) L_CE + α (1/N) Σ_i KL(p_i ‖ λ p_i + (1 − λ) q_i), or KL(q_i ‖ (1 − λ) p_i + λ q_i) (docs/method.md).

    The gradient passes through the mixture in both. λ is `skew`. The adaptive schedule of the student's text is the training option
    `rollouts.replay` (docs/rollouts.md).
    """

    name = "distillm"
    title = "DistiLLM"
    paper = "arXiv 2402.03898"
    not_reproduced = "The language-modelling loss on a second corpus."
    Options = SkewedOptions
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.3, 1.0),
        "temperature": Log(0.5, 2.0),
        "divergence": Choice("skewed_forward_kl", "skewed_reverse_kl"),
        "skew": Log(0.03, 0.5),
    }

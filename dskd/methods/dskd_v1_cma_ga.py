"""Cross-model attention whose keys and queries a discriminator tells apart (DSKD-CMA-GA, arXiv 2603.22056), any two vocabularies.

Notation of docs/method.md and docs/rivals.md: P_q a_i are the queries of the student's tokens, b_j the keys of the teacher's, 𝒟 is
the discriminator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from dskd import modeling
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import labelled_count, register
from dskd.methods.dskd_v1_cma import CrossModelAttentionOptions, DualSpaceV1CrossModelAttention
from dskd.methods.space import Log, Space
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor, nn


class AdversarialAttentionOptions(CrossModelAttentionOptions):
    """Options of cross-model attention with a generative adversarial term."""

    adversarial_rate: float = Field(
        0.01, ge=0.0, description="weight β of the adversarial term, beside 1 − α and α; 0 is dskd-v1-cma"
    )
    discriminator_hidden_size: int = Field(768, gt=0, description="columns of the discriminator's hidden layer")
    discriminator_dropout: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="in the discriminator (published: 0.1); above 0 a batch's split changes the result",
    )


@register
class AdversarialCrossModelAttention(DualSpaceV1CrossModelAttention):
    """L = L_dskd-v1-cma + β ((1/N) Σ_i −log(1 − σ(𝒟(P_q a_i))) + (1/M) Σ_j −log σ(𝒟(b_j))); M counts the teacher's labelled tokens.

    The gradient is reversed between the first sum and P_q: the discriminator 𝒟 descends both sums, P_q ascends the first. 𝒟 is
    part of the projectors, so it is trained at their learning rate, and saved.
    """

    name = "dskd-v1-cma-ga"
    title = "DSKD, version 1, cross-model attention, adversarial"
    paper = "arXiv 2603.22056"
    not_reproduced = (
        "Neither the variant with conditional transport nor a first stage for the projectors alone is here."
    )
    Options = AdversarialAttentionOptions
    # The published code has 0.01 by default, and its scripts 1.
    space: ClassVar[Space] = {**DualSpaceV1CrossModelAttention.space, "adversarial_rate": Log(0.003, 1.0)}
    discriminator: modeling.Discriminator | None = None

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> nn.Module:

        projectors = super().prepare(student_head, teacher_head, shared)
        if self.options.adversarial_rate:
            self.discriminator = modeling.Discriminator(
                2 * teacher_head.weight.shape[1],
                self.options.discriminator_hidden_size,
                self.options.discriminator_dropout,
            ).to(student_head.weight.device)
            projectors.add_module("discriminator", self.discriminator)
        return projectors

    def _matching(self, batch: TokenBatch, queries: Tensor, keys: Tensor) -> dict[str, LossTerm]:
        import torch
        from torch.nn.functional import softplus

        if self.discriminator is None:
            return {}
        of_queries, of_keys = self.discriminator(modeling.reverse_gradient(queries)), self.discriminator(keys)
        counts = self._matching_counts(batch)
        right = ((of_queries < 0).sum() + (of_keys > 0).sum()).float()
        batch.metrics["discriminator_accuracy"] = LossTerm(right, torch.stack([*counts.values()]).sum())
        sums = {"discriminator_queries": softplus(of_queries).sum(), "discriminator_keys": softplus(-of_keys).sum()}
        return {name: LossTerm(sums[name], counts[name]) for name in sums}

    def _matching_counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        queries = labelled_count(batch)
        return {
            "discriminator_queries": queries,
            "discriminator_keys": queries.new_full((), float(len(batch.teacher.labels))),
        }

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return super().counts(batch) | (self._matching_counts(batch) if self.options.adversarial_rate else {})

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        distillation = super().objective(means)
        if not self.options.adversarial_rate:
            return distillation
        adversarial = means["discriminator_queries"] + means["discriminator_keys"]
        return distillation + self.options.adversarial_rate * adversarial

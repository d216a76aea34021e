"""Supervised fine-tuning: cross entropy on the labels, no teacher. The baseline of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import Method, Requirements, cross_entropy, labelled_count, register

if TYPE_CHECKING:
    from torch import Tensor


@register
class SupervisedFineTuning(Method):
    """L = L_CE (docs/method.md)."""

    name = "sft"
    title = "supervised fine-tuning"
    paper = "–"
    requires = Requirements(teacher=False, on_policy="never")

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        return {"cross_entropy": cross_entropy(batch, batch.student.head.logits(batch.student.hidden, padded=True))}

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        return {"cross_entropy": labelled_count(batch)}

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        return means["cross_entropy"]

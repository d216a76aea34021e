"""Supervised fine-tuning: cross entropy on the labels, no teacher. The baseline of every comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dskd.methods.base import LabelledTokens, Method, Term, cross_entropy, labelled_count, register

if TYPE_CHECKING:
    from torch import Tensor


@register
class SupervisedFineTuning(Method):
    """L = L_CE (docs/method.md)."""

    name = "sft"
    title = "supervised fine-tuning"
    paper = "–"
    vocabulary = "any"
    policy = "off"
    needs_teacher = False

    def terms(self, batch: LabelledTokens) -> dict[str, Term]:
        return {"cross_entropy": cross_entropy(batch, batch.student_head.logits(batch.student_hidden, padded=True))}

    def counts(self, batch: LabelledTokens) -> dict[str, Tensor]:
        return {"cross_entropy": labelled_count(batch)}

    def objective(self, means: dict[str, Tensor]) -> Tensor:
        return means["cross_entropy"]

"""The teacher's distribution told in the student's tokens, at every token of the student's: ours (docs/our-method.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from dskd import losses, modeling, tokenization
from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import (
    DistillationMethod,
    DistillationOptions,
    Requirements,
    ResponseStatistics,
    UsesTokenizers,
    labelled_count,
    register,
)
from dskd.methods.space import Choice, Log, Space, Uniform
from dskd.tokenization.vocabulary import SharedVocabulary

if TYPE_CHECKING:
    from torch import Tensor


class PrefixOptions(DistillationOptions):
    """Options of prefix distillation."""

    kd_rate: float = Field(0.9, ge=0.0, le=1.0, description="weight α of distillation against cross entropy, 0 to 1")
    temperature: float = Field(1.0, gt=0.0, description="τ; divides the logarithms of both distributions")
    weighted: bool = Field(
        True, description="weigh a token by the teacher's probability of what is known there; without, all count alike"
    )
    inside: bool = Field(True, description="distil at tokens that begin inside one of the teacher's, too")


@register
class PrefixDistillation(ResponseStatistics, UsesTokenizers, DistillationMethod):
    """L = (1 − α) L_CE + α · mean over the labelled tokens that begin in one of the teacher's of ρ_i D(t_i ‖ q_i).

    u are the bytes of the teacher's token j before student token i begins. t_i(y) = Σ p_j(w) / Z over the teacher's tokens w that begin
    with u and of which y is the student's first token after u; of the token in the text, the part with which the teacher goes on as the
    text does belongs to the student's label. With one vocabulary this is `kd`.
    """

    name = "prefix-kd"
    title = "prefix distillation"
    paper = "ours"
    requires = Requirements()
    space: ClassVar[Space] = {
        "kd_rate": Uniform(0.5, 1.0),
        "temperature": Log(0.5, 2.0),
        "divergence": Choice("forward_kl", "js_divergence"),
    }
    Options = PrefixOptions
    _tokenizers: tuple[Any, Any] | None = None
    table: losses.PrefixTable | None = None

    def use_tokenizers(self, student: Any, teacher: Any) -> None:
        self._tokenizers = student, teacher

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> None:
        """Makes the map. Without tokenizers, tokens are split by the longest match."""
        if shared.same:
            return
        if shared.teacher_tokens is None or shared.student_tokens is None:
            raise InputError(
                f"methods.{self.name}: needs the bytes of both models' tokens, which are unknown here; "
                "fix: make the shared vocabulary with share_vocabulary"
            )
        split: tokenization.Pieces = tokenization.LongestMatch(shared.student_tokens)
        if self._tokenizers is not None:
            split = tokenization.TokenizerPieces(self._tokenizers[0], shared.student_tokens)
        found = tokenization.map_prefixes(shared, split)
        self.table = losses.PrefixTable.of(found, shared.student_tokens, student_head.weight.device)

    def response_statistics(self, batch: TokenBatch) -> Tensor:
        """Where each token begins, [tokens, 3] (dskd/losses/prefix_targets.py)."""
        import torch

        if self.table is not None:
            return losses.where_tokens_begin(batch, self.table)
        found = torch.full((len(batch.student.labels), 3), -1.0, device=batch.student.labels.device)
        values = torch.stack([batch.teacher.pairs.float(), torch.zeros_like(batch.teacher.pairs).float()], -1)
        return found.index_copy(0, batch.student.pairs, torch.cat([values, torch.ones_like(values[:, :1])], -1))

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        labelled = labelled_count(batch)
        taught = self._taught(batch, self._places(batch)).sum().to(labelled.dtype)
        return {"cross_entropy": labelled, "distillation": taught, "taught_share": labelled, "certainty": taught}

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        import torch

        logits = batch.student.head.logits(batch.student.hidden, padded=True)
        student_logits = batch.student.head.without_padding(logits)
        places = self._places(batch)
        taught = self._taught(batch, places)
        log_t, certainty = self._targets(batch, places, student_logits.shape[-1])
        distance = self.options.distance()(log_t, student_logits)
        weight = torch.where(taught, certainty if self.options.weighted else 1.0, 0.0)
        counts = self.counts(batch)
        sums = {
            "cross_entropy": self.cross_entropy(batch, logits).total,
            "distillation": torch.where(taught, weight * distance, 0.0).sum(),
            "taught_share": counts["distillation"],
            "certainty": torch.where(taught, certainty, 0.0).sum(),
        }
        return {name: LossTerm(sums[name], count) for name, count in counts.items()}

    def covered(self, batch: TokenBatch, terms: Any) -> Tensor:
        return terms["taught_share"].total

    def _places(self, batch: TokenBatch) -> Tensor:
        known = batch.student.per_token_statistics
        return self.response_statistics(batch) if known is None else known

    def _taught(self, batch: TokenBatch, places: Tensor) -> Tensor:
        """The tokens that the teacher has a distribution for, bool [tokens]."""
        known = places[:, losses.ROW] >= 0
        return known if self.options.inside else known & (places[:, losses.CUT] == 0)

    def _targets(self, batch: TokenBatch, places: Tensor, size: int) -> tuple[Tensor, Tensor]:
        import torch

        if self.table is not None:
            return losses.targets_of_prefixes(batch, places, self.table, size)
        with torch.no_grad():
            row = places[:, losses.ROW].clamp_min(0).long()
            return batch.teacher.head.logits(batch.teacher.hidden[row]), (places[:, losses.ROW] >= 0).float()

"""Methods as published code has them, with its defects, for comparisons: `method: dskd.upstream.methods:CLASS` in a matrix.

Each is its method of dskd.methods with the defects that `upstream_parity` names (docs/method.md), under its name in an identity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

import dskd.methods.dskd_v1_cma
import dskd.methods.dskd_v2
from dskd import modeling
from dskd.errors import InputError
from dskd.losses.tokens import LossTerm, TokenBatch
from dskd.methods.base import UsesTokenizers
from dskd.methods.dskd_v1_cma import CrossModelAttentionOptions
from dskd.methods.dskd_v2 import DualSpaceDistillation, DualSpaceOptions
from dskd.tokenization.vocabulary import SharedVocabulary
from dskd.upstream.defects import UpstreamParity, defects
from dskd.upstream.string_alignment import align_labels, published_student_ids

if TYPE_CHECKING:
    from torch import Tensor, nn


class PublishedDualSpaceOptions(DualSpaceOptions):
    """Options of dual-space distillation as published code has it."""

    retired: ClassVar = {}
    upstream_parity: UpstreamParity = Field(
        "none",
        description="as published code does, none, dskdv2 or kdflow, or a list of single defects: string_alignment, "
        "dskdv2_token_lookup or kdflow_token_lookup, micro_batch_means, stale_head (dskd/upstream/defects.py)",
    )


class _Published(UsesTokenizers, DualSpaceDistillation):
    """What `upstream_parity` changes of dual-space distillation."""

    Options = PublishedDualSpaceOptions
    # The terms that the published code averages over a micro-batch.
    averaged: ClassVar[frozenset[str]] = frozenset({"student_space"})
    _initial_head: modeling.Head | None = None

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self._defects = defects(self.options.upstream_parity)
        self._means = "micro_batch_means" in self._defects
        # A mean over a micro-batch is no sum over parts of it.
        pairing: Literal["own", "bytes"] = "own" if "string_alignment" in self._defects else "bytes"
        self.requires = replace(self.requires, chunkable=not self._means, pairing=pairing)

    def use_tokenizers(self, student: Any, teacher: Any) -> None:
        self._student_tokenizer, self._teacher_tokenizer = student, teacher

    def pair(self, student: Sequence[int], teacher: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        return align_labels(self._student_tokenizer, student, self._teacher_tokenizer, teacher)

    def prepare(self, student_head: modeling.Head, teacher_head: modeling.Head, shared: SharedVocabulary) -> nn.Module:
        import torch

        projectors = super().prepare(student_head, teacher_head, shared)
        if "stale_head" in self._defects:
            head = student_head.detach()
            bias = None if head.bias is None else head.bias.clone()
            self._initial_head = replace(head, weight=head.weight.clone(), bias=bias)
        for code in ("dskdv2", "kdflow"):
            if f"{code}_token_lookup" in self._defects and not shared.same:
                sizes = {"student_size": student_head.size, "teacher_size": len(shared.student_id_of)}
                ids = published_student_ids(self._student_tokenizer, self._teacher_tokenizer, code, **sizes)
                self.student_id_of = torch.from_numpy(ids).to(student_head.weight.device)
        return projectors

    def on_step_begin(self, student_head: modeling.Head) -> None:
        self.projectors.follow(student_head, derive=self._in_teacher and self._initial_head is None)

    def projection_head(self, batch: TokenBatch) -> modeling.Head:
        return super().projection_head(batch) if self._initial_head is None else self._initial_head

    def counts(self, batch: TokenBatch) -> dict[str, Tensor]:
        averaged = self.averaged if self._means else ()
        return {name: n.new_ones(()) if name in averaged else n for name, n in super().counts(batch).items()}

    def terms(self, batch: TokenBatch) -> dict[str, LossTerm]:
        terms = super().terms(batch)
        for name in self.averaged & terms.keys() if self._means else ():
            total, count = terms[name].total, terms[name].normalizer
            terms[name] = LossTerm(total / count.clamp_min(1.0), count.new_ones(()))
        return terms


class DualSpaceV2(_Published, dskd.methods.dskd_v2.DualSpaceV2):
    """dskd-v2 with the defects of published code."""


class DualSpaceV2ExactTokenAlignment(_Published, dskd.methods.dskd_v2.DualSpaceV2ExactTokenAlignment):
    """dskd-v2-eta with the defects of published code."""

    averaged = frozenset({"teacher_to_student_cross_entropy", "student_space", "teacher_space"})


class PublishedAttentionOptions(CrossModelAttentionOptions):
    """Options of cross-model attention as published code has it."""

    retired: ClassVar = {}
    upstream_parity: bool = Field(
        False,
        description="scale by one standard deviation of the micro-batch, prompt and padding included, as the published code does, "
        "and not by one an example; needs a live teacher and rows that are not packed",
    )


class DualSpaceV1CrossModelAttention(dskd.methods.dskd_v1_cma.DualSpaceV1CrossModelAttention):
    """dskd-v1-cma with the scales of published code."""

    Options = PublishedAttentionOptions

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        super().__init__(options)
        self.requires = replace(self.requires, padded_hidden=self.options.upstream_parity)

    def scaled(
        self, batch: TokenBatch, teacher: modeling.Layout, keys: Tensor, hidden: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each divided by one standard deviation of the micro-batch, prompt and padding included, where ids are replaced by 0."""
        import torch

        if not self.options.upstream_parity:
            return super().scaled(batch, teacher, keys, hidden, targets)
        padded = batch.teacher.padded_hidden
        if padded is None:
            raise InputError(
                "upstream_parity: prompt and padding of the teacher's micro-batch are not known; fix: run the teacher live"
            )
        replaced = batch.teacher.embedding[0].float().expand(padded[..., 0].numel() - len(keys), -1)
        keys = keys / torch.cat([keys, torch.cat([replaced, replaced], dim=-1)]).std()
        targets = targets / torch.cat([targets, replaced]).std()
        return keys, hidden / padded.float().std(), targets

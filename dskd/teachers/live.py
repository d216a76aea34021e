"""A teacher that runs in the training itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dskd.losses.tokens import SideTokens
from dskd.modeling.lm_head import final_hidden_states, output_head
from dskd.teachers.teacher import Teacher


class LiveTeacher(Teacher):
    """The frozen model itself, a transformers causal model of `size` real tokens, run on every batch."""

    def __init__(self, model: Any, size: int, *, padded_hidden: bool = False) -> None:
        super().__init__()
        self._model = model.requires_grad_(False).eval()
        self.head = output_head(model, size).detach()
        self.embedding = model.get_input_embeddings().weight.detach()
        self._examples: Tensor | int = 0
        self._padded_hidden = padded_hidden

    @property
    def examples(self) -> int:
        return int(self._examples)

    @torch.no_grad()
    def _fetch(self, side: SideTokens) -> SideTokens:
        # Labelled positions of one turn follow each other, those of two never do: also packed, and without a device read.
        self._examples = self._examples + (1 + (side.labelled.diff() != 1).sum())
        with self._clock.running(side.labelled.device):
            padded = final_hidden_states(self._model, side.input_ids, side.attention_mask, side.position_ids)
            more: Any = {"padded_hidden": padded} if self._padded_hidden else {}
            return replace(side, hidden=padded.flatten(0, 1)[side.labelled], **more)

"""A third, frozen model with the student's vocabulary, of which methods read how probable it finds the student's tokens (docs/rivals.md)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dskd.losses.chunked import chunk_size, chunks
from dskd.losses.token_groups import own_log_probabilities
from dskd.losses.tokens import SideTokens, TokenBatch
from dskd.methods.base import Method
from dskd.modeling.lm_head import labelled_hidden_states, output_head


class ReferenceModel:
    """The model of `size` real tokens; its log-probabilities are at `temperature`. No module, so that it is neither saved nor wrapped."""

    def __init__(self, model: Any, size: int, *, temperature: float = 1.0, chunk_tokens: int | None = None) -> None:
        self._model = model.requires_grad_(False).eval()
        self._head = output_head(model, size).detach()
        self._temperature = temperature
        self._chunk_tokens = chunk_tokens

    @classmethod
    def of(cls, method: Method, model: Any, size: int, chunk_tokens: int | None) -> ReferenceModel:
        """What a method requires, at its temperature."""
        temperature = getattr(method.options, "temperature", 1.0)
        return cls(model, size, temperature=temperature, chunk_tokens=chunk_tokens)

    @torch.no_grad()
    def fetch(self, batch: TokenBatch) -> TokenBatch:
        """The batch with log r of the student's labels, a chunk of tokens at a time."""
        hidden = labelled_hidden_states(self._model, batch.student)
        whole = TokenBatch(SideTokens(head=self._head, hidden=hidden, labels=batch.student.labels))
        found = [
            own_log_probabilities(self._head.logits(part.student.hidden), part.student.labels, self._temperature)[0]
            for part in chunks(whole, chunk_size(whole, self._chunk_tokens))
        ]
        return replace(batch, reference=SideTokens(label_log_probabilities=torch.cat(found)))

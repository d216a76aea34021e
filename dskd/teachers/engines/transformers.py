"""Hidden states by transformers, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.modeling.causality import check_causal
from dskd.modeling.lm_head import Head, final_hidden_states, output_head
from dskd.teachers.engines.base import Answers, TeacherEngine
from dskd.teachers.questions import Question, in_batches


class TransformersEngine(TeacherEngine):
    """The frozen model itself; `ask` returns when it has answered.

    Args:
        model: A transformers causal model.
        size: The number of real tokens.
        device: Where it is to run.
        batch_tokens: The largest batch, with padding; questions of about one length make a batch.

    Attributes:
        head: The model's output head.
        embedding: [vocabulary, hidden], its input embedding.

    Raises:
        InputError: For a model that sees what comes next.
    """

    def __init__(self, model: Any, size: int, *, device: Any, batch_tokens: int) -> None:
        self._model = model.to(device).requires_grad_(False).eval()
        check_causal(self._model, size)
        self.head: Head = output_head(self._model, size).detach()
        self.embedding: Tensor = self._model.get_input_embeddings().weight.detach()
        self._device = device
        self._batch_tokens = batch_tokens

    def ask(self, questions: Sequence[Question]) -> Future[Answers]:
        hidden: list[Tensor] = [torch.empty(0)] * len(questions)
        for batch in in_batches([len(question.ids) for question in questions], self._batch_tokens):
            for k, states in zip(batch, self._run([questions[k] for k in batch]), strict=True):
                hidden[k] = states
        future: Future[Answers] = Future()
        future.set_result({"hidden": torch.cat(hidden)})
        return future

    @torch.no_grad()
    def _run(self, questions: Sequence[Question]) -> Sequence[Tensor]:
        """The states asked about, [positions, hidden] of each question."""
        shape = len(questions), max(len(question.ids) for question in questions)
        # Padding may be any token: nothing attends to it, and nothing is asked about it.
        ids, mask, positions = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        asked = []
        for row, question in enumerate(questions):
            length = len(question.ids)
            ids[row, :length] = question.ids
            mask[row, :length] = 1
            positions[row, :length] = np.arange(length)
            asked.append(row * shape[1] + question.positions)
        given = (torch.from_numpy(values).to(self._device) for values in (ids, mask, positions))
        states = final_hidden_states(self._model, *given).flatten(0, 1)
        states = states[torch.from_numpy(np.concatenate(asked)).to(states.device)].cpu()
        return states.split([len(question.positions) for question in questions])

    def close(self) -> None:
        del self._model, self.head, self.embedding

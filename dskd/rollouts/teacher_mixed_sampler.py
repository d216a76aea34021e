"""Text sampled token by token from a mixture of the student and the teacher, which share a vocabulary (MiniLLM)."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from dskd.rollouts.sampler import Prompt, TransformersSampler, left_padded
from dskd.tokenization.vocabulary import Vocabulary


class TeacherMixedSampler(TransformersSampler):
    """Samples by transformers' generation from (1 − α) q + α p: q is the student's, p the teacher's, which reads its own prompt."""

    def __init__(
        self, student: Any, vocabulary: Vocabulary, end: int, *, teacher: Any, teacher_mix: float, **options: float
    ) -> None:
        super().__init__(student, vocabulary, end, **options)
        self._teacher = teacher
        self._teacher_mix = teacher_mix

    def _mixture(self, prompts: Sequence[Prompt]) -> _Mixture:
        return _Mixture(self._teacher, [prompt.teacher for prompt in prompts], self._end, self._teacher_mix)


class _Mixture:
    """Logits of the mixture at each step of a generation; the teacher reads each new token once, its keys and values are kept."""

    def __init__(self, teacher: Any, prompts: Sequence[list[int]], padding: int, share: float) -> None:
        self._teacher = teacher
        self._share = share
        self._new, self._mask = left_padded(prompts, padding, teacher.get_input_embeddings().weight.device)
        self._cache = DynamicCache(config=teacher.config)
        self._first = True
        parameters = inspect.signature(teacher.forward).parameters
        self._takes_places, self._takes_last = "position_ids" in parameters, "logits_to_keep" in parameters

    def __call__(self, input_ids: Tensor, possible: Tensor) -> Tensor:
        """possible [rows, tokens]: the student's logits, minus infinity at what may not be drawn."""
        if not self._first:
            self._new = input_ids[:, -1:]
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        self._first = False
        arguments: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True}
        if self._takes_places:
            arguments["position_ids"] = (self._mask.cumsum(-1) - 1).clamp_min(0)[:, -self._new.shape[1] :]
        if self._takes_last:
            arguments["logits_to_keep"] = 1
        output = self._teacher(input_ids=self._new, attention_mask=self._mask, **arguments)
        # In float64, as tokens are drawn.
        of_teacher = output.logits[:, -1, : possible.shape[-1]].double()
        of_teacher = of_teacher.masked_fill(possible == -torch.inf, -torch.inf).log_softmax(-1)
        of_student = possible.double().log_softmax(-1)
        return torch.logaddexp(of_student + math.log1p(-self._share), of_teacher + math.log(self._share))

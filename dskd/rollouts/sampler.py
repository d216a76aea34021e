"""What writes the student's own text: the interface of all engines, and transformers' own generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig

from dskd.modeling.eval_mode import evaluating
from dskd.rollouts.drawing import draw
from dskd.tokenization.vocabulary import Vocabulary


class Sample(NamedTuple):
    """What a model wrote: ids, with the end of sequence if it `ended`."""

    ids: list[int]
    ended: bool


class Prompt(NamedTuple):
    """One prompt in the tokens of both models."""

    student: list[int]
    teacher: list[int]


class Sampler(Protocol):
    """An engine that writes responses with the student's weights as they are.

    Attributes:
        precision: Makes a context such as autocast.
        prompts_at_once: The most prompts of a call; None for an engine that itself decides how many it continues together.
    """

    precision: Callable[[], Any]
    prompts_at_once: int | None

    def update(self) -> None:
        """Called before the samples of each step: the student's weights have changed."""

    def sample(self, prompts: Sequence[Prompt], numbers: np.ndarray) -> list[Sample]:
        """A sample for each prompt, of at most as many tokens as `numbers` [prompts, tokens] has, uniform in [0, 1), one each."""
        ...

    def close(self) -> Any:
        """Called when nothing more is to be sampled."""


class TransformersSampler:
    """Samples by transformers' own generation, from the very module that is trained, dropout off.

    Ids that stand for nothing (padded rows of the head, gaps in the vocabulary) are never drawn; special tokens stop a sample.
    """

    # Of like length: enough to keep a device busy, and few enough for their keys and values.
    prompts_at_once: int | None = 64

    def __init__(
        self, student: Any, vocabulary: Vocabulary, end: int, *, temperature: float = 1.0, top_p: float = 1.0
    ) -> None:
        self.precision: Callable[[], Any] = nullcontext
        self._student = student
        self._end = end
        self._stops = stop_tokens(vocabulary, end)
        self._known = possible_tokens(vocabulary, end)
        self._temperature = temperature
        self._top_p = top_p

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _mixture(self, prompts: Sequence[Prompt]) -> Callable[[Tensor, Tensor], Tensor] | None:
        """(ids so far, the student's logits [rows, vocabulary]) -> the logits to draw from; None for the student's own."""
        return None

    def sample(self, prompts: Sequence[Prompt], numbers: np.ndarray) -> list[Sample]:
        # An adapter (LoRA) is part of the layers of the model below it.
        model = self._student.get_base_model() if hasattr(self._student, "get_base_model") else self._student
        device = model.get_input_embeddings().weight.device
        ids, mask = left_padded([prompt.student for prompt in prompts], self._end, device)
        width = ids.shape[1]
        drawn_by, known = torch.from_numpy(numbers).to(device), torch.tensor(self._known, device=device)
        choose = _Choose(drawn_by, width, known, self._temperature, self._top_p, self._mixture(prompts))
        config = GenerationConfig(
            do_sample=False,  # what is to be drawn, the processor has drawn
            max_new_tokens=numbers.shape[1],
            eos_token_id=self._stops,
            pad_token_id=self._end,
            use_cache=True,
        )
        own = model.generation_config
        # `generate` would fill in what ours leaves open, such as a repetition penalty.
        model.generation_config = GenerationConfig()
        try:
            with evaluating(model), self.precision(), torch.no_grad():
                output = model.generate(
                    input_ids=ids, attention_mask=mask, generation_config=config, logits_processor=[choose]
                )
        finally:
            model.generation_config = own
        return [self._cut(row) for row in output[:, width:].tolist()]

    def _cut(self, ids: list[int]) -> Sample:
        stop = next((k for k, token in enumerate(ids) if token in self._stops), len(ids) - 1)
        return Sample(ids[: stop + 1], ended=ids[stop] == self._end)


def left_padded(rows: Sequence[list[int]], padding: int, device: Any) -> tuple[Tensor, Tensor]:
    """(ids, attention mask), both int64 [rows, width]."""
    width = max(map(len, rows))
    ids = torch.tensor([[padding] * (width - len(row)) + row for row in rows], device=device)
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)


def stop_tokens(vocabulary: Vocabulary, end: int) -> list[int]:
    return sorted({end} | vocabulary.special_ids)


def possible_tokens(vocabulary: Vocabulary, end: int) -> list[bool]:
    """By id, whether it may be drawn."""
    return [bool(piece) or k == end for k, piece in enumerate(vocabulary.token_bytes)]


@dataclass(frozen=True)
class _Choose:
    """A logits processor that draws each row's next token by a number of that row, and leaves nothing but it to choose."""

    numbers: Tensor  # [rows, tokens]
    width: int  # of the prompts
    known: Tensor  # [vocabulary]
    temperature: float
    top_p: float
    mixture: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        numbers = self.numbers[:, input_ids.shape[1] - self.width]
        mixture = None if self.mixture is None else partial(self.mixture, input_ids)
        return only_drawn(scores, self.known, numbers, self.temperature, self.top_p, mixture)


def only_drawn(
    scores: Tensor,
    known: Tensor,
    numbers: Tensor,
    temperature: float,
    top_p: float,
    mixture: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """scores [rows, head], known [vocabulary], numbers [rows] -> scores [rows, head]: 0 at the token drawn, -∞ elsewhere."""
    possible, unknown = scores[:, : len(known)], ~known[: scores.shape[1]]
    if unknown.any():
        possible = possible.masked_fill(unknown, -torch.inf)
    if mixture is not None:
        possible = mixture(possible)
    tokens = draw(possible, numbers, temperature, top_p)
    return torch.full_like(scores, -torch.inf).scatter_(1, tokens.unsqueeze(1), 0.0)

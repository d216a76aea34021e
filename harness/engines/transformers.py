"""Generation by transformers: runs anywhere torch does, on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)

from dskd.modeling.causality import check_causal
from dskd.modeling.loading import load_model
from dskd.rollouts.sampler import draw
from harness.engines._seeds import uniform_numbers
from harness.engines.base import Engine, GeneratedTokens, Sampling

DEFAULT_BATCH_SIZE = 64
_AT_ONCE = 256  # logits [tokens, vocabulary] in float32


class TransformersEngine(Engine):
    """Batches of prompts of similar length, padded on the left, through `generate`."""

    name: ClassVar[str] = "transformers"
    preference: ClassVar[int] = 0

    def __init__(
        self,
        model: Path,
        *,
        seed: int,
        max_batch_size: int | None = None,
        max_length: int | None = None,
        dtype: str = "float32",
        no_repeat_ngram: bool = False,  # any request may ask
    ) -> None:
        super().__init__(model, seed=seed, max_batch_size=max_batch_size, max_length=max_length)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_model(model, dtype).to(self._device).eval()
        check_causal(self.model, min(len(self.tokenizer), self.model.get_input_embeddings().weight.shape[0]))
        # A folder's own defaults (a repetition penalty, a top_k) would make the engines differ: only what a task asks for counts.
        self.model.generation_config = GenerationConfig()

    @classmethod
    def unavailable(cls, model: Path) -> str | None:  # noqa: ARG003
        """None: transformers is always there, and says itself what is wrong with a model."""
        return None

    def close(self) -> None:
        """Let go of the model."""
        del self.model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def block_size(self) -> int:
        """One batch."""
        return self.max_batch_size or DEFAULT_BATCH_SIZE

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[GeneratedTokens]:
        width = max(len(ids) for ids in prompts)
        filler = self.eos_token_ids[0]  # masked, so any token does
        ids = torch.tensor([[filler] * (width - len(p)) + p for p in prompts], device=self._device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=self._device)
        ends = _RowEnds(self, prompts, width, sampling)
        processors = LogitsProcessorList()
        if sampling.no_repeat_ngram:
            # It sees the filler too, which changes nothing: a row that has written so many end tokens has ended.
            processors.append(NoRepeatNGramLogitsProcessor(sampling.no_repeat_ngram))
        if sampling.temperature > 0:
            numbers = torch.from_numpy(uniform_numbers(seeds, sampling.max_new_tokens)).to(self._device)
            processors.append(_Draw(numbers, width, sampling))
        config = GenerationConfig(max_new_tokens=sampling.max_new_tokens, pad_token_id=filler, do_sample=False)
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([ends]),
        )
        rows = output[:, width:].tolist()
        self._report(len(prompts))
        return [GeneratedTokens(row[:end], end is not None) for row, end in zip(rows, ends.ends, strict=True)]

    @torch.inference_mode()
    def _loglikelihoods(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        # Continuations of one token after the same context differ in what is predicted alone: their text is read once.
        rows: dict[tuple[int, ...], int] = {}
        places: dict[tuple[int, int], int] = {}  # (row, position) whose logits are wanted
        wanted: list[int] = []  # of each token of each continuation: which of the places predicts it
        for context, continuation in pairs:
            row = rows.setdefault((*context, *continuation[:-1]), len(rows))
            first = len(context) - 1
            wanted += [places.setdefault((row, first + n), len(places)) for n in range(len(continuation))]
        logits = self._logits(list(rows), list(places))
        # Parts in float32, so that the whole is there once, in the model's dtype.
        parts = logits.split(_AT_ONCE)
        sums = torch.cat([part.float().logsumexp(-1) for part in parts])
        largest = torch.cat([part.argmax(-1) for part in parts])
        index = torch.tensor(wanted, device=self._device)
        tokens = torch.tensor([token for _, continuation in pairs for token in continuation], device=self._device)
        values = (logits[index, tokens].float() - sums[index]).tolist()
        greedy = (largest[index] == tokens).tolist()
        self._report(len(pairs))
        scores, start = [], 0
        for _, continuation in pairs:
            own = slice(start, start := start + len(continuation))
            scores.append((sum(values[own]), all(greedy[own])))
        return scores

    def _logits(self, rows: list[tuple[int, ...]], places: list[tuple[int, int]]) -> Tensor:
        """The logits [places, vocabulary] at (row, position). The head is applied there alone.

        Rows are filled on the right: a causal model does not see it, and positions stay what they are.
        """
        width = max(map(len, rows))
        filler = self.eos_token_ids[0]
        ids = torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows], device=self._device)
        at = tuple(torch.tensor(places, device=self._device).T)
        head = self.model.get_output_embeddings()
        hooks = []
        if head is not None:
            hooks.append(head.register_forward_pre_hook(lambda _, given: (given[0][at].unsqueeze(0), *given[1:])))
        try:
            logits = self.model(input_ids=ids, use_cache=False).logits
        finally:
            for hook in hooks:
                hook.remove()
        # A model that does not call its head as a module gives all of them.
        return logits[0] if logits.shape[:2] == (1, len(places)) else logits[at]


class _Draw(LogitsProcessor):
    """Draws the next token of each row by a number of that row, and leaves nothing else to choose.

    `generate` would draw all rows from one source, so that an answer would depend on its batch.
    """

    def __init__(self, numbers: Tensor, width: int, sampling: Sampling) -> None:
        self.numbers, self.width, self.sampling = numbers, width, sampling  # numbers: [batch, new tokens]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores [batch, vocabulary] -> 0 at the token drawn, -∞ elsewhere."""
        asked, possible = self.sampling, scores
        if 0 < asked.top_k < scores.shape[-1]:
            possible = scores.masked_fill(scores < scores.topk(asked.top_k).values[:, -1:], -torch.inf)
        tokens = draw(possible, self.numbers[:, input_ids.shape[1] - self.width], asked.temperature, asked.top_p)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens.unsqueeze(1), 0.0)


class _RowEnds(StoppingCriteria):
    """Ends each row of a batch at its end-of-sequence id, its first stop string or its limit, and remembers where.

    transformers' own `stop_strings` also look at the prompt's text, where a stop string of a task usually stands.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Sequence[int]], width: int, sampling: Sampling) -> None:
        self.width, self.eos_token_ids = width, frozenset(engine.eos_token_ids)
        self.completions = [engine.completion_end(prompt, sampling) for prompt in prompts]
        self.window = max(completion.window for completion in self.completions)
        self.ends: list[int | None] = [None] * len(prompts)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which rows are done. input_ids: [batch, width + new tokens]."""
        length = input_ids.shape[1] - self.width
        recent = input_ids[:, -min(self.window, length) :].tolist()
        for row, ids in enumerate(recent):
            if self.ends[row] is None and (ids[-1] in self.eos_token_ids or self._over(input_ids, row, ids)):
                self.ends[row] = length
        return torch.tensor([end is not None for end in self.ends], device=input_ids.device)

    def _over(self, input_ids: Tensor, row: int, recent: list[int]) -> bool:
        return self.completions[row].reached(recent, lambda: input_ids[row, self.width :].tolist())


ENGINE = TransformersEngine

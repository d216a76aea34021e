"""What an engine is: prompts in, completions out, by the same rules whatever generates the tokens.

An engine gives token ids for token ids. What a model is shown and what counts as its completion is decided here, once: the
prompt's ids, what is kept of a prompt that does not fit, how ids become text, what of it is reasoning, and where a stop string or a
limit ends reasoning and answer. So are the ids of the continuations that a model is asked the log-likelihoods of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from dskd.data.preparation import encode_prompt
from dskd.errors import InputError
from dskd.io import read_object
from dskd.modeling.folders import parts_of, require_model_folder
from dskd.modeling.loading import load_config, load_tokenizer
from harness.engines._blocks import AnyBlock, AskedPairs, AskedPrompts, CutBlock, PairBlock
from harness.engines._completion_cache import CompletionCache
from harness.engines._decoding import cut_at_stop as cut_at_stop  # engines of others import both from here
from harness.engines._decoding import decode_completion as decode_completion
from harness.engines._limits import CompletionEnd, LimitedTokens, TokenLimits, answer_sampling
from harness.engines._pairs import EncodedPair, encode_pairs, fit_pair
from harness.engines._reasoning import AnswerEnd, CompletionReader
from harness.engines._types import Completion, GeneratedTokens, LogLikelihood, Sampling


def fit_prompt(
    ids: list[int], room: int, bos_token_id: int | None, kept: Literal["first", "last"] = "last"
) -> tuple[list[int], bool]:
    """At most `room` ids of a prompt, and whether some were dropped.

    The end of a prompt asks the question, so the end is kept unless a protocol says otherwise; and the begin token, where the
    prompt has one, because models such as Gemma write nonsense without it.
    """
    if len(ids) <= room:
        return ids, False
    if kept == "first":
        return ids[:room], True
    if ids[0] == bos_token_id and room > 1:
        return [ids[0], *ids[-(room - 1) :]], True
    return ids[-room:], True


def eos_token_ids(model: Path, tokenizer: Any) -> list[int]:
    """The ids that end an answer: the tokenizer's, and those of the model's generation_config.json."""
    ids = {tokenizer.eos_token_id}
    settings = parts_of(model).generation_config
    if settings is not None:
        configured = read_object(settings).get("eos_token_id")
        ids.update(configured if isinstance(configured, list) else [configured])
    return sorted(id_ for id_ in ids if id_ is not None)


class Engine(ABC):
    """A model that completes prompts.

    A subclass implements `unavailable`, `block_size`, `_generate` and `close`, and `_loglikelihoods` where it can.
    `preference` orders the engines for "auto". `spreads`: its constructor takes `tensor_parallel`, the GPUs that share a model.

    Attributes:
        on_finished: Called with the number of prompts, or continuations, that have just been finished, where it is set.
        before_block: Called before each block that is computed, where it is set; what was finished before is in the cache.
        cache: Keeps the blocks that are finished, where it is set (`harness.engines._completion_cache`).
    """

    name: ClassVar[str]
    preference: ClassVar[int]
    spreads: ClassVar[bool] = False

    def __init__(self, model: Path, *, seed: int, max_batch_size: int | None, max_length: int | None) -> None:
        require_model_folder(model)
        self.model_folder = model
        self.tokenizer = load_tokenizer(model)
        self.config = load_config(model)
        self.eos_token_ids = eos_token_ids(model, self.tokenizer)
        self.reader = CompletionReader(self.tokenizer)
        # Tokens that the model can attend to; None where neither its configuration nor the caller sets a limit.
        positions = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        self.context = min((n for n in (positions, max_length) if n is not None), default=None)
        self.seed = seed
        self.max_batch_size = max_batch_size
        self.on_finished: Callable[[int], None] | None = None
        self.cache: CompletionCache | None = None
        self.before_block: Callable[[], None] | None = None

    @classmethod
    @abstractmethod
    def unavailable(cls, model: Path) -> str | None:
        """Return why this engine cannot run the model on this machine and what to do about it, or None if it can."""

    @property
    @abstractmethod
    def block_size(self) -> int:
        """How many prompts are completed together, at most."""

    @abstractmethod
    def _generate(self, prompts: list[list[int]], sampling: Sampling, seeds: Sequence[int]) -> list[GeneratedTokens]:
        """Continue each prompt of a block. `seeds`, one a prompt, decide the random numbers, and nothing else may.

        Calls `_report` as prompts are finished. May end early where `completion_end` says so; `complete` cuts there anyway.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the model and its memory. Close an engine before making the next one in the same process."""

    def complete(
        self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int] | None = None
    ) -> list[Completion]:
        """Complete prompts.

        Args:
            prompts: Texts, begin tokens left out.
            sampling: How tokens are chosen, the same for all prompts.
            seeds: Of the random numbers, one a prompt; counted from the engine's seed where there are none.

        Returns:
            A completion for each prompt, in order.

        Raises:
            InputError: The model's context has no room for a prompt and its completion.
        """
        asked = self.asked(prompts, sampling, seeds)
        limited = self._limited(asked)
        return [
            self._finish(ids, truncated, tokens, asked.sampling)
            for ids, truncated, tokens in zip(asked.ids, asked.truncated, limited, strict=True)
        ]

    def asked(self, prompts: Sequence[str], sampling: Sampling, seeds: Sequence[int] | None = None) -> AskedPrompts:
        """What `complete` asks of the model: the ids of the prompts, and their blocks."""
        if self.reader.markers is None:  # nothing is reasoning
            sampling = replace(answer_sampling(sampling), after_reasoning=False)
        encoded = [self._encode(text, sampling) for text in prompts]
        if seeds is None:
            seeds = range(self.seed, self.seed + len(prompts))
        ids, truncated = [ids for ids, _ in encoded], [dropped for _, dropped in encoded]
        return AskedPrompts(ids, truncated, sampling, list(seeds), self.block_size)

    def _limited(self, asked: AskedPrompts) -> list[LimitedTokens]:
        """Completions within the limits of reasoning and answer; reasoning that was cut is closed where the protocol says so."""
        generated = self._in_blocks(asked.blocks)
        if asked.sampling.max_reasoning_tokens is None:
            return asked.in_order([[LimitedTokens(tokens.ids, tokens.ended) for tokens in each] for each in generated])
        cut = [CutBlock(self.reader, self.eos_token_ids, *each) for each in zip(asked.blocks, generated, strict=True)]
        answers = iter(self._in_blocks([block for each in cut for block in each.unanswered]))
        return asked.in_order([each.limited([next(answers) for _ in each.unanswered]) for each in cut])

    def _in_blocks(self, blocks: Sequence[AnyBlock]) -> Iterator[list[Any]]:
        """The results of blocks in order; what an earlier attempt has finished is read. Here one after the other."""
        for block in blocks:
            found = self._found(block, self.cache)
            if found is None:
                if self.before_block is not None:
                    self.before_block()
                found = self._finished(block, self._counted(block), self.cache)
            yield found

    def _counted(self, block: AnyBlock) -> list[Any]:
        if block.counted:
            return self.answer(block)
        report, self.on_finished = self.on_finished, None
        try:
            return self.answer(block)
        finally:
            self.on_finished = report

    def answer(self, block: AnyBlock) -> list[Any]:
        """What the model makes of one block."""
        if isinstance(block, PairBlock):
            return self._score(block.pairs)
        return self._generate(block.prompts, block.sampling, block.seeds)

    def _found(self, block: AnyBlock, cache: CompletionCache | None) -> list[Any] | None:
        """What an earlier attempt has left of a block, or None."""
        found = cache.get(block.key, block.result) if cache is not None else None
        if found is not None and block.counted:
            self._report(len(found))
        return found

    def _finished(self, block: AnyBlock, results: list[Any], cache: CompletionCache | None) -> list[Any]:
        if len(results) != len(block):
            raise RuntimeError(f"engine {self.name}: {len(results)} results for a block of {len(block)}")
        if cache is not None:
            cache.put(block.key, results)
        return results

    def loglikelihoods(self, pairs: Sequence[tuple[str, str]]) -> list[LogLikelihood]:
        """How likely the model finds continuations after their contexts.

        Args:
            pairs: (context, continuation), texts without begin tokens. Which ids they are: `harness.engines._pairs`.

        Returns:
            A log-likelihood for each pair, in order.

        Raises:
            InputError: The engine computes none, a continuation has no token of its own, or the model's context no room for it.
        """
        asked = self.asked_pairs(pairs)
        return asked.in_order(self._in_blocks(asked.blocks))

    def asked_pairs(self, pairs: Sequence[tuple[str, str]]) -> AskedPairs:
        """What `loglikelihoods` asks of the model."""
        if not self.scores_texts:
            raise InputError(
                f"engine {self.name}: it computes no log-likelihoods; fix: use vllm or transformers, or give it the method "
                "`_loglikelihoods` (docs/engines.md)"
            )
        encoded = [fit_pair(pair, self.scored_length) for pair in encode_pairs(self.tokenizer, pairs)]
        return AskedPairs(encoded, self.block_size)

    @property
    def scores_texts(self) -> bool:
        """Whether it computes log-likelihoods."""
        return type(self)._loglikelihoods is not Engine._loglikelihoods

    @property
    def scored_length(self) -> int | None:
        """How many ids a context and its continuation may have together: the last is predicted, and not read."""
        return None if self.context is None else self.context + 1

    def _score(self, pairs: Sequence[EncodedPair]) -> list[LogLikelihood]:
        scores = self._loglikelihoods([(list(pair.context), list(pair.continuation)) for pair in pairs])
        return [
            LogLikelihood(value, is_greedy, len(pair.continuation), pair.truncated)
            for pair, (value, is_greedy) in zip(pairs, scores, strict=True)
        ]

    def _loglikelihoods(self, pairs: list[tuple[list[int], list[int]]]) -> list[tuple[float, bool]]:
        """Score the pairs of a block, each the ids of a context and of its continuation, neither of them empty.

        Returns for each the sum of the log-probabilities of the continuation's tokens, from logits in float32, and whether each
        of them has the largest logit. Calls `_report` as pairs are finished.
        """
        raise NotImplementedError

    def _encode(self, text: str, sampling: Sampling) -> tuple[list[int], bool]:
        ids = encode_prompt(self.tokenizer, text)
        if not ids:
            # Nothing to condition on: a model starts from its begin or, as GPT-2 does, its end token.
            start = self.tokenizer.bos_token_id
            ids = [self.tokenizer.eos_token_id if start is None else start]
        room = sampling.max_prompt_tokens or len(ids)
        most = self.reader.longest(sampling)
        if self.context is not None:
            room = min(room, self.context - most)
        if room < 1:
            limits = (
                "max_new_tokens" if sampling.max_reasoning_tokens is None else "max_reasoning_tokens or max_new_tokens"
            )
            raise InputError(
                f"{self.model_folder / 'config.json'}: a context of {self.context} tokens has no room for a prompt and "
                f"{most} new tokens; fix: lower {limits} of the task"
            )
        return fit_prompt(ids, room, self.tokenizer.bos_token_id, sampling.prompt_kept)

    def _finish(self, prompt: list[int], truncated: bool, limited: LimitedTokens, sampling: Sampling) -> Completion:
        read = self.reader.read(prompt, limited.ids, sampling.stop, reasons=limited.reasoning_cut)
        return Completion(
            read.answer,
            "stop" if read.stopped or limited.ended else "length",
            limited.ids,
            prompt,
            truncated,
            read.reasoning,
            # What closed the reasoning is not the model's; it may have closed it once more.
            max(
                read.reasoning_tokens - limited.closing, min(read.reasoning_tokens, sampling.max_reasoning_tokens or 0)
            ),
            read.reasoning_ended,
            limited.closing,
        )

    def completion_end(self, prompt: Sequence[int], sampling: Sampling) -> CompletionEnd:
        """What tells `_generate`, token by token, whether a completion is over: by a stop string, never within reasoning, or a limit.

        End-of-sequence ids and `max_new_tokens` are the engine's to look for.
        """
        answer = AnswerEnd(self.reader, prompt, sampling.stop, after_reasoning=sampling.after_reasoning)
        limited = sampling.max_reasoning_tokens is not None
        return CompletionEnd(answer, TokenLimits(self.reader, prompt, sampling) if limited else None)

    def _report(self, finished: int) -> None:
        if self.on_finished is not None and finished:
            self.on_finished(finished)

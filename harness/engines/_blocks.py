"""Blocks: what an engine is asked at once, one after the other or several at a time.

Which prompts form a block, and in which order, follows from the request alone. So a block has the same results whether it is the first
or the last that an engine is asked, after a kill, and in whichever process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from harness.engines._completion_cache import block_key, pairs_key
from harness.engines._limits import LimitedTokens, TokenLimits, answer_sampling, answer_seed
from harness.engines._pairs import EncodedPair
from harness.engines._reasoning import CompletionReader
from harness.engines._types import GeneratedTokens, LogLikelihood, Sampling

_T = TypeVar("_T")


@dataclass(frozen=True)
class PromptBlock:
    """Prompts that are continued together, each with the seed of its random numbers. `counted`: they count as progress."""

    prompts: list[list[int]]
    sampling: Sampling
    seeds: list[int]
    counted: bool = True

    result: ClassVar[type[Any]] = GeneratedTokens

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def key(self) -> str:
        """What it is kept under."""
        return block_key(self.prompts, self.sampling, self.seeds)


@dataclass(frozen=True)
class PairBlock:
    """Contexts with their continuations that are scored together."""

    pairs: list[EncodedPair]

    result: ClassVar[type[Any]] = LogLikelihood
    counted: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.pairs)

    @cached_property
    def key(self) -> str:
        """What it is kept under."""
        return pairs_key(self.pairs)


AnyBlock = PromptBlock | PairBlock


@dataclass(frozen=True)
class AskedPrompts:
    """The prompts of a request, all with the same sampling. `truncated`: which of them lost tokens."""

    ids: list[list[int]]
    truncated: list[bool]
    sampling: Sampling
    seeds: list[int]
    block_size: int

    @cached_property
    def _order(self) -> list[int]:
        # Longest first: the block that needs the most memory fails at once or not at all.
        return sorted(range(len(self.ids)), key=lambda index: -len(self.ids[index]))

    @cached_property
    def blocks(self) -> list[PromptBlock]:
        """All of them, in blocks."""
        return [
            PromptBlock([self.ids[index] for index in part], self.sampling, [self.seeds[index] for index in part])
            for part in _parts(self._order, self.block_size)
        ]

    def in_order(self, results: Iterable[Sequence[_T]]) -> list[_T]:
        """The results of the blocks, in the order of the prompts."""
        return _in_order(self._order, results)


@dataclass(frozen=True)
class AskedPairs:
    """The contexts and continuations of a request."""

    pairs: list[EncodedPair]
    block_size: int

    @cached_property
    def _order(self) -> list[int]:
        # Longest first, as for prompts; and what begins alike together, so that an engine can read it once.
        def place(index: int) -> tuple[object, ...]:
            pair = self.pairs[index]
            return -len(pair), pair.context, pair.continuation

        return sorted(range(len(self.pairs)), key=place)

    @cached_property
    def blocks(self) -> list[PairBlock]:
        """All of them, in blocks."""
        return [PairBlock([self.pairs[index] for index in part]) for part in _parts(self._order, self.block_size)]

    def in_order(self, results: Iterable[Sequence[_T]]) -> list[_T]:
        """The results of the blocks, in the order of the pairs."""
        return _in_order(self._order, results)


class CutBlock:
    """What a model generated for a block, cut at the limits of reasoning and answer.

    `unanswered`: the block, or none, that asks for the answers after reasoning that was cut and is closed.
    """

    def __init__(
        self,
        reader: CompletionReader,
        eos_token_ids: Collection[int],
        block: PromptBlock,
        generated: Sequence[GeneratedTokens],
    ) -> None:
        self._limited = [
            TokenLimits(reader, prompt, block.sampling).apply(tokens, eos_token_ids)
            for prompt, tokens in zip(block.prompts, generated, strict=True)
        ]
        closes = block.sampling.reasoning_end == "close"
        self._cut = [index for index, tokens in enumerate(self._limited) if tokens.reasoning_cut and closes]
        self._closings = [reader.closing(self._limited[index].ids) for index in self._cut]
        self.unanswered: list[PromptBlock] = []
        if self._cut:
            # Their prompts were counted when the reasoning was there.
            begun = [[*block.prompts[index], *ids] for index, ids in zip(self._cut, self._begun(), strict=True)]
            seeds = [answer_seed(block.seeds[index]) for index in self._cut]
            self.unanswered = [PromptBlock(begun, answer_sampling(block.sampling), seeds, counted=False)]

    def _begun(self) -> list[list[int]]:
        """What stands before each answer that is asked for: reasoning, and what closes it."""
        return [[*self._limited[index].ids, *closing] for index, closing in zip(self._cut, self._closings, strict=True)]

    def limited(self, answers: Sequence[Sequence[GeneratedTokens]]) -> list[LimitedTokens]:
        """The completions of the block, given the results of `unanswered`."""
        limited = list(self._limited)
        found = [answer for each in answers for answer in each]
        for index, ids, closing, answer in zip(self._cut, self._begun(), self._closings, found, strict=True):
            limited[index] = LimitedTokens([*ids, *answer.ids], answer.ended, reasoning_cut=True, closing=len(closing))
        return limited


def _parts(order: Sequence[int], size: int) -> list[Sequence[int]]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def _in_order(order: Sequence[int], results: Iterable[Sequence[_T]]) -> list[_T]:
    by_index = dict(zip(order, (result for each in results for result in each), strict=True))
    return [by_index[index] for index in range(len(order))]

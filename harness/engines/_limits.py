"""Two limits of tokens, for the reasoning and for the answer: where they end a completion, decided on its ids alone.

The reasoning ends with the first closing marker, as for stop strings; what follows is the answer, line ends included. So an engine that
generates the sum of both gives the completions of one that stops at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from harness.engines._reasoning import AnswerEnd, CompletionReader
from harness.engines._types import GeneratedTokens, Sampling


@dataclass(frozen=True)
class Limit:
    """After how many ids a completion ends at the latest, and whether that is within its reasoning."""

    tokens: int
    in_reasoning: bool


@dataclass(frozen=True)
class LimitedTokens:
    """The ids of a completion within its limits.

    `reasoning_cut`: its reasoning was not over at the limit. `closing` of the ids, after the reasoning, are not the model's: they close
    it, and the answer follows.
    """

    ids: list[int]
    ended: bool
    reasoning_cut: bool = False
    closing: int = 0


class TokenLimits:
    """The limits of the completion of one prompt. `sampling.max_reasoning_tokens` is set."""

    def __init__(self, reader: CompletionReader, prompt: Sequence[int], sampling: Sampling) -> None:
        assert sampling.max_reasoning_tokens is not None
        self.reader, self.reasoning, self.answer = reader, sampling.max_reasoning_tokens, sampling.max_answer_tokens
        self._opened = reader.opened(prompt)

    def limit(self, ids: Sequence[int]) -> Limit | None:
        """The limit of a completion that begins with these ids; None where they do not yet tell reasoning from an answer."""
        reasons = self._opened or self.reader.starts_with_reasoning(ids)
        if reasons is None:
            return None
        if not reasons:
            return Limit(self.answer, in_reasoning=False)
        closed = self.reader.closed_at(ids[: self.reasoning])
        return Limit(self.reasoning, True) if closed is None else Limit(closed + self.answer, False)

    def next_look(self, ids: Sequence[int]) -> int:
        """After how many ids to look again: no limit ends a completion before that. At most `len(ids)` where one has ended it."""
        limit = self.limit(ids)
        if limit is None:
            return len(ids) + 1
        if limit.in_reasoning and len(ids) < limit.tokens:
            return min(limit.tokens, len(ids) + 1 + self.answer)  # the next token may close it
        return limit.tokens

    def apply(self, generated: GeneratedTokens, eos_token_ids: Collection[int]) -> LimitedTokens:
        """What a model generated, cut at its limit."""
        limit = self.limit(generated.ids) or Limit(self.answer, in_reasoning=False)
        if len(generated.ids) < limit.tokens:
            return LimitedTokens(generated.ids, generated.ended)
        ids = generated.ids[: limit.tokens]
        ended = ids[-1] in eos_token_ids
        return LimitedTokens(ids, ended, reasoning_cut=limit.in_reasoning and not ended)


class CompletionEnd:
    """Whether a completion has reached its end, asked after each of its tokens: a stop string in its answer, or a limit.

    `window`: how many of its last ids `reached` is given.
    """

    def __init__(self, answer: AnswerEnd, limits: TokenLimits | None) -> None:
        self.window = max(1, answer.window)
        self._answer, self._limits = answer, limits
        self._tokens, self._look = 0, 1

    def reached(self, recent: Sequence[int], whole: Callable[[], Sequence[int]]) -> bool:
        """Whether the last token has ended it. `recent`: its last `window` ids or all; `whole` gives all."""
        self._tokens += 1
        return self._answer.reached(recent, whole) or self._limited(whole)

    def _limited(self, whole: Callable[[], Sequence[int]]) -> bool:
        # All ids are looked at a few times for each completion, not after each token.
        if self._limits is None or self._tokens < self._look:
            return False
        self._look = self._limits.next_look(whole())
        return self._look <= self._tokens


def answer_sampling(sampling: Sampling) -> Sampling:
    """How the answer is generated after reasoning that was closed at its limit."""
    return replace(
        sampling,
        max_new_tokens=sampling.max_answer_tokens,
        max_reasoning_tokens=None,
        reasoning_end="cut",
        after_reasoning=True,
    )


def answer_seed(seed: int) -> int:
    """The seed, below 2^63, of such an answer: from the completion's own and nothing else. Its first numbers are used up."""
    return int.from_bytes(hashlib.sha256(json.dumps([seed, "answer"]).encode()).digest()[:8], "big") >> 1

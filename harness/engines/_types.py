"""What engines are given and what they return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and where a completion ends.

    Temperature 0 is greedy decoding; top_k 0 and no_repeat_ngram 0 are off. Stop strings are not part of the completion.
    `max_prompt_tokens`, `prompt_kept` and `reasoning_end` are as in `harness.protocols`.

    `max_new_tokens` are those of a whole completion. Where `max_reasoning_tokens` is set, so many of them are for the reasoning and the
    others for the answer. `after_reasoning`: the prompts end with reasoning that was closed at its limit, so all is answer.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    no_repeat_ngram: int = 0
    max_prompt_tokens: int | None = None
    prompt_kept: Literal["first", "last"] = "last"
    max_reasoning_tokens: int | None = None
    reasoning_end: Literal["cut", "close"] = "cut"
    after_reasoning: bool = False

    @property
    def max_answer_tokens(self) -> int:
        """The most tokens after the reasoning; of a completion without any, the most of all."""
        return self.max_new_tokens - (self.max_reasoning_tokens or 0)


@dataclass(frozen=True)
class GeneratedTokens:
    """The ids that a model generated after a prompt, the end-of-sequence id included.

    `ended` is true at an end-of-sequence id and where a stop string was seen; false where `max_new_tokens` alone ended the text. The
    limits of reasoning and answer are applied afterwards.
    """

    ids: list[int]
    ended: bool


@dataclass(frozen=True)
class Completion:
    """A model's answer to one prompt, and the reasoning that it wrote before, None without (dskd/tokenization/reasoning.py).

    `prompt_ids` are the ids that the model was given, `ids` all that it generated: its reasoning with the markers
    (`reasoning_tokens` of them), its end of sequence and what a stop string cut off are among them. Where the reasoning was not
    ended there is no answer: `text` is empty. Where it was closed at its limit, `closing_tokens` of the ids did that after the reasoning,
    and are not the model's.
    """

    text: str
    finish_reason: Literal["stop", "length"]
    ids: list[int]
    prompt_ids: list[int]
    prompt_truncated: bool = False
    reasoning: str | None = None
    reasoning_tokens: int = 0
    reasoning_ended: bool = True
    closing_tokens: int = 0

    @property
    def generated_tokens(self) -> int:
        """The tokens that the model generated."""
        return len(self.ids) - self.closing_tokens


@dataclass(frozen=True)
class LogLikelihood:
    """How likely a model finds a continuation after its context.

    `value` is the sum of the natural logarithms of its tokens' probabilities, `is_greedy` whether each of them is the most
    probable one. `tokens` of the continuation were scored. `truncated`: the context lost its first tokens.
    """

    value: float
    is_greedy: bool
    tokens: int
    truncated: bool = False

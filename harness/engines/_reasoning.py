"""What a completion's ids say: reasoning, answer, and where a stop string ends the answer.

Special tokens are not text, but the markers of reasoning may be special tokens; so those are kept where a model's markers hold
them. A stop string counts only in the answer: reasoning is full of empty lines and of whatever else a task's stop strings are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.reasoning import answer_begins, markers_of, opens, split_reasoning, starts_reasoning
from dskd.tokenization.reasoning_closing import closing_text
from harness.engines._decoding import cut_at_stop, decode, decode_completion, special_ids
from harness.engines._types import Sampling

# Ids that are decoded to look for an opening marker, at the end of a prompt or the start of a completion: more than it has.
_LOOKED_AT = 64


@dataclass(frozen=True)
class ReadCompletion:
    """A completion's text in its parts; `reasoning_tokens` ids make the reasoning and its markers."""

    answer: str
    stopped: bool
    reasoning: str | None = None
    reasoning_tokens: int = 0
    reasoning_ended: bool = True


class CompletionReader:
    """Reads completions of one tokenizer's model. `markers` is None where nothing says how the model would mark reasoning."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.markers = markers_of(tokenizer)
        # The special tokens that are no text: None for all of them.
        self.skipped: set[int] | None = None
        if self.markers is not None:
            special = special_ids(tokenizer)
            spelled = self.markers.opening + self.markers.end + self.markers.closing
            if kept := special.intersection(tokenizer(spelled, add_special_tokens=False)["input_ids"]):
                self.skipped = special - kept

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, markers included."""
        return decode(self.tokenizer, ids, self.skipped)

    def text(self, prompt: Sequence[int], ids: Sequence[int]) -> str:
        """The text that a completion adds to its prompt, markers included."""
        return decode_completion(self.tokenizer, prompt, ids, self.skipped)

    def opened(self, prompt: Sequence[int]) -> bool:
        """Whether a completion of this prompt begins inside reasoning."""
        return self.markers is not None and opens(self.decode(prompt[-_LOOKED_AT:]), self.markers)

    def starts_with_reasoning(self, ids: Sequence[int]) -> bool | None:
        """Whether a completion opens with reasoning; None while its ids are too few to tell."""
        assert self.markers is not None
        starts = starts_reasoning(self.decode(ids[:_LOOKED_AT]), self.markers)
        return False if starts is None and len(ids) > _LOOKED_AT else starts

    def closed_at(self, ids: Sequence[int]) -> int | None:
        """How many ids it takes to close the reasoning that a completion begins with; None where they do not."""
        assert self.markers is not None
        return self._tokens_to(ids, 1) if self.markers.closing in self.decode(ids) else None

    def read(
        self, prompt: Sequence[int], ids: Sequence[int], stop: Sequence[str], *, reasons: bool = False
    ) -> ReadCompletion:
        """The parts of a completion, cut at the first stop string of its answer. `reasons`: it is known to begin with reasoning."""
        whole, opened = self.text(prompt, ids), reasons or self.opened(prompt)
        start = self.answer_start(whole, opened=opened)
        text, stopped = (whole, False) if start is None else cut_at_stop(whole[start:], stop)
        if start:
            text = whole[:start] + text
        split = split_reasoning(text, self.markers, opened=opened)
        if self.markers is None or split.reasoning is None:
            return ReadCompletion(self._answer(prompt, ids, split.answer, stop), stopped)
        begins = answer_begins(text, self.markers, opened=opened)
        if begins is None:
            return ReadCompletion("", stopped, split.reasoning, len(ids), reasoning_ended=False)
        tokens = self._tokens_to(ids, text[:begins].count(self.markers.closing))
        answer = self._answer([*prompt, *ids[:tokens]], ids[tokens:], split.answer, stop)
        return ReadCompletion(answer, stopped, split.reasoning, tokens)

    def _answer(self, before: Sequence[int], ids: Sequence[int], text: str, stop: Sequence[str]) -> str:
        """An answer's text, of which special tokens are no part: markers neither."""
        if self.skipped is None:
            return text
        return cut_at_stop(decode_completion(self.tokenizer, before, ids).lstrip("\r\n"), stop)[0]

    def answer_start(self, text: str, *, opened: bool) -> int | None:
        """From where in a completion stop strings count, None while it reasons: after the first closing marker and its line ends."""
        if self.markers is None or not (opened or starts_reasoning(text, self.markers)):
            return 0
        _, closed, answer = text.partition(self.markers.closing)
        return len(text) - len(answer.lstrip("\r\n")) if closed else None

    def closing(self, reasoning: Sequence[int]) -> list[int]:
        """The ids that close reasoning which ends with these ids, as the model's template does, and stand before an answer.

        InputError where the tokenizer does not write the marker.
        """
        text = self._closing_text
        # Line ends that are there already are not written twice.
        tail = self.decode(reasoning[-len(text) :])
        while text.startswith("\n") and tail.endswith("\n"):
            text, tail = text[1:], tail[:-1]
        return self._written(text)

    def longest(self, sampling: Sampling) -> int:
        """The most ids that can follow a prompt."""
        if self.markers is None:
            return sampling.max_answer_tokens
        closes = sampling.max_reasoning_tokens is not None and sampling.reasoning_end == "close"
        texts = (self._closing_text, self._closing_text.lstrip("\n")) if closes else ()
        return sampling.max_new_tokens + max((len(self._written(text)) for text in texts), default=0)

    @cached_property
    def _closing_text(self) -> str:
        assert self.markers is not None
        return closing_text(self.tokenizer, self.markers)

    def _written(self, text: str) -> list[int]:
        # After a letter: a text's first token may bring a space along, and a line end may merge with what stands before it.
        before = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        both = self.tokenizer(f"a{text}", add_special_tokens=False)["input_ids"]
        apart = both[: len(before)] == before
        ids = both[len(before) :] if apart else self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if self.markers is None or self.markers.closing not in self.decode(ids):
            raise InputError(
                f"{self.tokenizer.name_or_path}: the tokenizer does not write {text!r} as it stands, so reasoning cannot be closed; "
                "fix: reasoning_end: cut"
            )
        return ids

    def _tokens_to(self, ids: Sequence[int], closings: int) -> int:
        """How many ids it takes to write so many closing markers."""
        assert self.markers is not None
        closing = self.markers.closing
        return bisect_left(range(len(ids)), closings, key=lambda n: self.decode(ids[:n]).count(closing))


class AnswerEnd:
    """Whether a stop string has ended an answer, asked after each token of one completion.

    A token writes a byte or more, so what is new lies within `window` tokens; a few more, for skipped ones write nothing.
    """

    def __init__(
        self, reader: CompletionReader, prompt: Sequence[int], stop: Sequence[str], *, after_reasoning: bool = False
    ) -> None:
        self.reader, self.prompt, self.stop = reader, prompt, [string for string in stop if string]
        self._after_reasoning = after_reasoning  # which was closed at its limit
        looked_for = [*self.stop, *([reader.markers.closing] if reader.markers is not None else [])]
        self.window = max(len(string.encode()) for string in looked_for) + 8 if self.stop else 0
        self._opened = bool(self.stop) and reader.opened(prompt)
        # Reasoning or answer; None: the first tokens do not yet tell.
        self._reasons = False if reader.markers is None or after_reasoning else self._opened or None

    def reached(self, recent: Sequence[int], whole: Callable[[], Sequence[int]]) -> bool:
        """Whether the completion has just reached its end. `recent`: its last `window` ids or all; `whole` gives all."""
        if not self.stop:
            return False
        told = self._reasons
        if told is None:
            self._reasons = self.reader.starts_with_reasoning(whole())
        if self._reasons:
            self._reasons = self._markers_closing not in self.reader.decode(recent)
        if self._reasons is not False:
            return False
        # The cheap look says no most of the time; where it says yes, the text as it will be cut decides.
        if told is not None and not cut_at_stop(self.reader.decode(recent), self.stop)[1]:
            return False
        text = self.reader.text(self.prompt, whole())
        if self._after_reasoning:
            return cut_at_stop(text.lstrip("\r\n"), self.stop)[1]
        start = self.reader.answer_start(text, opened=self._opened)
        return start is not None and cut_at_stop(text[start:], self.stop)[1]

    @property
    def _markers_closing(self) -> str:
        assert self.reader.markers is not None
        return self.reader.markers.closing

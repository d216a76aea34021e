"""A task that asks how likely a model finds given continuations: multiple choice without generation, and words to be predicted."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NoReturn, Self

from dskd.errors import InputError
from dskd.tokenization.prompt_templates import Instruction
from harness.engines._types import LogLikelihood
from harness.metrics.sample import Advance, SampleScore
from harness.protocols import GREEDY, DecodingProtocol
from harness.tasks.task import Doc, Task

Pair = tuple[str, str]  # a context and a continuation


class LogLikelihoodTask(Task):
    """A task scored by log-likelihoods; nothing is generated, so it has no protocol but greedy and no limit of tokens.

    A subclass has `documents`, `reference` (the right option), `continuations` and `score_loglikelihoods`. A model with a
    template is given the same texts as one without.
    """

    max_new_tokens: int = 0

    @abstractmethod
    def continuations(self, doc: Doc) -> list[Pair]:
        """Return the contexts and continuations whose log-likelihoods the score is made of; the same number on every call."""

    @abstractmethod
    def score_loglikelihoods(
        self, docs: Sequence[Doc], found: Sequence[Sequence[LogLikelihood]], advance: Advance
    ) -> list[SampleScore]:
        """Return the score of each document from those of its continuations, in order. Calls `advance` after each."""

    def choices(self, doc: Doc) -> list[Pair]:
        """Return those of the continuations that the model chooses among, the first ones; all of them unless a task says otherwise."""
        return self.continuations(doc)

    def prompt(self, doc: Doc) -> str:
        """Return what the contexts of the choices have in common, from their start: the context, where they have the same."""
        return os.path.commonprefix([context for context, _ in self.choices(doc)])  # noqa: RUF071 - characters are compared

    def options(self, doc: Doc) -> list[str]:
        """Return the text of each choice after the prompt."""
        start = len(self.prompt(doc))
        return [context[start:] + continuation for context, continuation in self.choices(doc)]

    def chosen(self, doc: Doc, found: Sequence[LogLikelihood]) -> str:
        """Return the most likely option, or a single one where greedy decoding would write it, else nothing."""
        options = self.options(doc)
        if len(options) == 1:
            return options[0] if found[0].is_greedy else ""
        return options[max(range(len(options)), key=lambda n: found[n].value)]

    def instruction(self, doc: Doc) -> Instruction:
        return Instruction(self.prompt(doc))

    def render_prompt(self, doc: Doc, tokenizer: Any) -> str:
        """Return the prompt as it is: no template is put around it."""
        return self.prompt(doc)

    def as_chat(self) -> Self:
        """Return the task itself."""
        return self

    def check_protocol(self, protocol: DecodingProtocol) -> None:
        """InputError for anything but greedy with nothing else set."""
        if protocol != GREEDY:
            raise InputError(
                f"task {self.name}: it is scored by log-likelihoods and generates nothing, so not by the protocol {protocol.label!r}; "
                "fix: leave out protocol, max_new_tokens and max_reasoning_tokens"
            )

    def require_completions(self) -> NoReturn:
        """InputError: there are none."""
        raise InputError(
            f"task {self.name}: it is scored by log-likelihoods, and there are no completions; fix: use harness evaluate, or a "
            "matrix"
        )

    def score_outputs(self, docs: Sequence[Doc], outputs: Sequence[str], advance: Advance) -> list[SampleScore]:
        """InputError: there are no outputs to score."""
        self.require_completions()

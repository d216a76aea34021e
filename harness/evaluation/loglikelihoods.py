"""Tasks scored by log-likelihoods: contexts and continuations to an engine, and what it finds to samples with scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dskd.errors import InputError
from harness.engines._blocks import AskedPairs
from harness.engines._pairs import encode_pairs
from harness.engines._types import LogLikelihood
from harness.engines.base import Engine
from harness.evaluation.summary import category_field
from harness.tasks.loglikelihood_task import LogLikelihoodTask, Pair
from harness.tasks.task import Doc


@dataclass(frozen=True)
class LogLikelihoodWork:
    """One such task to evaluate, with the contexts and continuations of each document."""

    task: LogLikelihoodTask
    docs: Sequence[Doc]
    pairs: list[list[Pair]]

    @classmethod
    def of(cls, task: LogLikelihoodTask, docs: Sequence[Doc]) -> LogLikelihoodWork:
        """The work of these documents. InputError where two have the same id."""
        if len({doc["id"] for doc in docs}) < len(docs):
            raise InputError(f"task {task.name}: two documents have the same id; fix: give each its own")
        return cls(task, docs, [task.continuations(doc) for doc in docs])

    @property
    def size(self) -> int:
        """How many continuations are scored."""
        return sum(map(len, self.pairs))

    def length(self, tokenizer: Any) -> int:
        """The tokens of the longest context with its continuation, and of one more, which some engines generate."""
        return max(map(len, encode_pairs(tokenizer, self._all))) + 1

    def asked(self, engine: Engine) -> AskedPairs:
        """What the engine is asked."""
        return engine.asked_pairs(self._all)

    def samples(self, engine: Engine, allow_code_execution: bool = False) -> list[dict[str, Any]]:
        """Score the documents: a sample each, in order. Nothing is generated, so no code is run."""
        found = iter(engine.loglikelihoods(self._all))
        own = [[next(found) for _ in pairs] for pairs in self.pairs]
        scores = self.task.score_loglikelihoods(self.docs, own, lambda: None)
        return [
            {
                "id": doc["id"],
                "index": 0,
                "seed": None,
                "prompt": self.task.prompt(doc),
                "output": self.task.chosen(doc, each),
                "gold": self.task.reference(doc),
                "loglikelihoods": self._described(doc, pairs, each),
                **category_field(self.task, doc),
                **score.as_dict(),
                "generated_tokens": 0,
                "prompt_truncated": any(one.truncated for one in each),
            }
            for doc, pairs, each, score in zip(self.docs, self.pairs, own, scores, strict=True)
        ]

    @property
    def _all(self) -> list[Pair]:
        return [pair for pairs in self.pairs for pair in pairs]

    def _described(self, doc: Doc, pairs: Sequence[Pair], found: Sequence[LogLikelihood]) -> list[dict[str, Any]]:
        prompt = self.task.prompt(doc)
        return [
            {
                "text": (context + continuation).removeprefix(prompt),
                "value": one.value,
                "is_greedy": one.is_greedy,
                "tokens": one.tokens,
            }
            for (context, continuation), one in zip(pairs, found, strict=True)
        ]

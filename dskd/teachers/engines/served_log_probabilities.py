"""Log-probabilities of tokens from the /v1/completions of a vLLM server that generates (`vllm serve MODEL`), asked for by token ids.

Of the OpenAI-compatible servers only those can teach that take token ids as prompts and give `prompt_logprobs` by id, as vLLM does.
`echo` with `logprobs` has spellings in the place of ids: two tokens may have one spelling, and a token may be a part of a character.

Each request begins with a text that is the same all the time. Its log-probabilities must be those of the first answer, so whatever
stands behind an address, no answer of another model is learnt from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.errors import InputError, TrainingFailed
from dskd.teachers.engines.base import Answers
from dskd.teachers.engines.prompt_log_probabilities import (
    NothingOfPrompts,
    WrongAnswer,
    read_choices,
    text_log_probabilities,
    top_k,
)
from dskd.teachers.engines.served_engine import ServedEngine, in_requests, together
from dskd.teachers.http import Reply
from dskd.teachers.options import ServedOptions
from dskd.teachers.questions import Question

# What the log-probabilities of one model's canary may differ by on average: rounding to bfloat16 in batches of other shapes. Those of
# two models differ by more on any text that neither has learnt by heart.
TOLERANCE = 0.15
_CANARY_TOKENS = 33
_PROMPTS = 1000  # vLLM takes 1,024 in a request
_PATH = "/v1/completions"
_LIMIT = re.compile(r"max allowed: (\d+)")


class ServedLogProbabilities(ServedEngine):
    """Asks servers for the k most probable tokens, or for the log-probability of the text alone.

    Args:
        served: Where they are, and which of the two is wanted.
        size: The tokens of the teacher; ids from here on are padded rows of its head. None: not known, all ids are taken for tokens.

    Raises:
        InputError: Where the server does not give what is asked for; see ServedEngine, too.
        TrainingFailed: Where no server answers.
    """

    def __init__(self, served: ServedOptions, size: int | None = None) -> None:
        # A server that is asked for more tokens than it has would end.
        if served.kind == "top_k" and size is not None and served.k > size:
            raise InputError(f"k: {served.k}, but the teacher has {size} tokens; fix: a smaller k")
        super().__init__(served)
        self._k = served.k if self.kind == "top_k" else 0
        self._size, self._request_tokens = size, served.request_tokens
        self._canary: Question | None = None  # the first text of every request
        try:
            self._require_log_probabilities()
        except BaseException:
            self.close()
            raise

    def ask(self, questions: Sequence[Question]) -> Future[Answers]:
        if self._canary is None:
            self._canary = _canary(questions[0])
        return together([self._post(part) for part in in_requests(questions, self._request_tokens, _PROMPTS)], _joined)

    def ask_at(self, address: str, questions: Sequence[Question]) -> Answers:
        parts = in_requests(questions, self._request_tokens, _PROMPTS)
        return _joined([self._answers(self.servers.ask(address, _PATH, self._body(part)), part)[0] for part in parts])

    def _post(self, questions: list[Question]) -> Future[Answers]:
        assert self._canary is not None
        asked = [self._canary, *questions]

        def read(reply: Reply) -> Answers:
            answers, canary = self._answers(reply, asked, with_canary=True)
            self._require_same(reply.address, canary)
            return answers

        return self.servers.post(_PATH, self._body(asked), read)

    def _body(self, questions: Sequence[Question]) -> dict[str, Any]:
        return {
            "model": self.model,
            "prompt": [question.ids for question in questions],
            "prompt_logprobs": self._k,
            "max_tokens": 1,  # the fewest that vLLM takes; what it writes is not looked at
            "temperature": 0,
        }

    def _answers(self, reply: Reply, asked: Sequence[Question], *, with_canary: bool = False) -> tuple[Answers, Tensor]:
        """(what a reply says of the questions, what it says of the canary, which is the first of them, [labels])."""
        said = reply.json()
        try:
            entries = read_choices(said, asked)
            canary = text_log_probabilities(entries[:1], asked[:1])["log_probabilities"]
            questions, entries = (asked[1:], entries[1:]) if with_canary else (asked, entries)
            if self.kind == "top_k":
                return top_k(entries, questions, self._k, self._size), canary
            return text_log_probabilities(entries, questions), canary
        except NothingOfPrompts:
            raise InputError(
                f"{reply.address}: says nothing of the tokens of a prompt (prompt_logprobs); fix: serve the teacher with vLLM"
            ) from None
        except WrongAnswer as error:
            reason = self.servers.line(error)
            raise TrainingFailed(
                f"{reply.address}: answers {_PATH} with what {reason}; fix: look at the server's log; nothing was learnt from this "
                "answer, and the last checkpoint stays"
            ) from None

    def _require_log_probabilities(self) -> None:
        """InputError where the servers do not give as many as are asked for."""
        question = Question([0, 0], np.zeros(1, dtype=np.int64))
        try:
            self.servers.post(_PATH, self._body([question]), lambda reply: self._answers(reply, [question])).result()
        except InputError as error:
            if limit := _LIMIT.search(str(error)):
                raise InputError(
                    f"{self.servers.addresses[0]}: gives at most {limit[1]} log-probabilities a token, but k is {self._k}; "
                    f"fix: set k to {limit[1]} or less, or start it with --max-logprobs {self._k}"
                ) from None
            raise

    def _require_same(self, address: str, canary: Tensor) -> None:
        """TrainingFailed where another model answered than did first."""
        whose, first = self.first_answer(address, canary)
        apart = float((canary - first).abs().mean())
        if not apart <= TOLERANCE:
            raise TrainingFailed(
                f"{address}: its log-probabilities of one text are {apart:.2f} apart on average from those that were {whose} (limit "
                f"{TOLERANCE}), so this is another model; fix: give "
                "the address of the teacher that the training began with, and one model behind all addresses; the last checkpoint stays"
            )


def _canary(question: Question) -> Question:
    """A short text of its own, of what is learnt from: prompts are often alike, and known by heart."""
    first = int(question.positions[0])
    ids = question.ids[first : first + _CANARY_TOKENS]
    return Question(ids, np.arange(len(ids) - 1))


def _joined(parts: Sequence[Answers]) -> Answers:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

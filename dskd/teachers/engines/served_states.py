"""Hidden states from `vllm serve --runner pooling`: raw bytes of every token, of which the positions asked about are kept.

Each request begins with a text of two tokens, the same all the time. Its states must be those of the first answer; so whatever stands
behind an address, a load balancer or a server started anew, no answer of another model is learnt from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.errors import TrainingFailed
from dskd.teachers.engines.base import Answers
from dskd.teachers.engines.served_engine import ServedEngine, together
from dskd.teachers.http import Away, Reply
from dskd.teachers.options import ServedOptions
from dskd.teachers.questions import Question

# The answer's shapes stand in one header, 105 characters a text, and a proxy between takes 4 KB of headers or little more.
TEXTS = 32
# What the states of one model may differ by, as a share of their norm: rounding on the wire, and in batches of other shapes.
TOLERANCE = {"float32": 1e-2, "float16": 3e-2, "bfloat16": 5e-2}
_PATH = "/pooling"
_STAYS = "the last checkpoint stays, and the same command goes on from it"
_SERVE = f"fix: start the server as `harness teacher serve-command` says; {_STAYS}"
_OTHER = f"fix: one model behind all addresses, the one that the training began with; {_STAYS}"


class ServedHiddenStates(ServedEngine):
    """Asks pooling servers for the states that enter the teacher's head. Arguments and errors: see ServedEngine."""

    def __init__(self, served: ServedOptions) -> None:
        super().__init__(served)
        self._dtype, self._request_tokens = served.dtype, served.request_tokens
        self._canary: list[int] = []  # the tokens of the first text of every request
        self._first: tuple[str, Tensor] | None = (
            None  # the address of the first answer, and the canary's states [tokens, hidden]
        )

    def ask(self, questions: Sequence[Question]) -> Future[Answers]:
        self._canary = self._canary or questions[0].ids[:-1][-2:]
        parts = [self._post(part) for part in _requests(questions, self._request_tokens)]
        return together(parts, lambda hidden: {"hidden": torch.cat(hidden)})

    def ask_at(self, address: str, questions: Sequence[Question]) -> Answers:
        hidden = []
        for part in _requests(questions, self._request_tokens):
            texts = [question.ids[:-1] for question in part]
            states = self._states(self.servers.ask(address, _PATH, self._body(texts)), texts)
            hidden.append(_asked_about(states, part))
        return {"hidden": torch.cat(hidden)}

    def _post(self, questions: list[Question]) -> Future[Tensor]:
        texts = [self._canary, *(question.ids[:-1] for question in questions)]

        def read(reply: Reply) -> Tensor:
            states = self._states(reply, texts)
            before = len(self._canary)
            self._require_same(reply.address, states[:before])
            return _asked_about(states[before:], questions)

        return self.servers.post(_PATH, self._body(texts), read)

    def _body(self, texts: list[list[int]]) -> dict[str, Any]:
        return {
            "model": self.model,
            "input": texts,
            "task": "token_embed",
            "encoding_format": "bytes",
            "embed_dtype": self._dtype,
            "endianness": sys.byteorder,
        }

    def _states(self, reply: Reply, texts: list[list[int]]) -> Tensor:
        """The states of all tokens [tokens, hidden] in an answer, which is checked.

        Raises Away for half an answer, TrainingFailed for an answer to something else.
        """
        items = _described(reply)
        if items and len(reply.content) < items[-1]["end"]:
            raise Away(f"half an answer, {len(reply.content)} of {items[-1]['end']} bytes")
        if wrong := _difference(items, texts, self._dtype, len(reply.content)):
            raise TrainingFailed(f"{reply.address}: {wrong}; {_SERVE}")
        states = torch.frombuffer(bytearray(reply.content), dtype=getattr(torch, self._dtype))
        states = states.view(-1, items[0]["shape"][1])
        if not states.isfinite().all():
            rows = int((~states.isfinite()).any(1).sum())
            fix = "dtype: bfloat16" if self._dtype == "float16" else "start the server with --dtype bfloat16 or float32"
            raise TrainingFailed(
                f"{reply.address}: {rows} of {len(states)} hidden states are not finite in {self._dtype}; fix: {fix}; {_STAYS}"
            )
        return states

    def _require_same(self, address: str, canary: Tensor) -> None:
        """TrainingFailed where another model answered than did first."""
        if self._first is None:
            self._first = address, canary.double()
            return
        place, first = self._first
        whose = f"answered as {place} did" if place != address else "answered before"
        if canary.shape != first.shape:
            raise TrainingFailed(
                f"{address}: has a hidden size of {canary.shape[1]}, and {whose} with {first.shape[1]}; {_OTHER}"
            )
        distance = ((canary.double() - first).norm() / first.norm()).item()
        limit = TOLERANCE[self._dtype]
        if not distance <= limit:
            raise TrainingFailed(
                f"{address}: its states differ by {distance:.3g} of their norm from those that were {whose} (limit {limit:g}), so "
                f"this is another model; {_OTHER}"
            )


def _requests(questions: Sequence[Question], tokens: int) -> Iterator[list[Question]]:
    """The questions in their order in parts of at most so many tokens, and TEXTS; a longer one is a part of its own."""
    part: list[Question] = []
    size = 0
    for question in questions:
        length = len(question.ids) - 1
        if part and (size + length > tokens or len(part) == TEXTS):
            yield part
            part, size = [], 0
        part.append(question)
        size += length
    if part:
        yield part


def _asked_about(states: Tensor, questions: Sequence[Question]) -> Tensor:
    """The states at the positions of questions [positions, hidden], from those of all their tokens."""
    begins = np.cumsum([0, *(len(question.ids) - 1 for question in questions)])
    places = np.concatenate(
        [begin + question.positions for begin, question in zip(begins[:-1], questions, strict=True)]
    )
    return states[torch.from_numpy(places)]


def _described(reply: Reply) -> list[dict[str, Any]]:
    """What an answer says of each of its texts."""
    try:
        found = json.loads(reply.headers["metadata"])["data"]
        return [
            {key: item[key] for key in ("index", "embed_dtype", "endianness", "start", "end", "shape")}
            for item in found
        ]
    except (KeyError, TypeError, ValueError):
        raise TrainingFailed(
            f"{reply.address}: answers {_PATH} without the shapes of what it gives; {_SERVE}"
        ) from None


def _difference(items: list[dict[str, Any]], texts: list[list[int]], dtype: str, size: int) -> str | None:
    """What is wrong with an answer of `size` bytes, by what it says of each text; None where nothing is."""
    if len(items) != len(texts):
        return f"answers {len(items)} of {len(texts)} texts"
    hidden = items[0]["shape"][-1] if items[0]["shape"] else 0
    number = getattr(torch, dtype).itemsize
    end = 0
    for k, (item, text) in enumerate(zip(items, texts, strict=True)):
        begin, end = end, end + len(text) * hidden * number
        expected = {"index": k, "embed_dtype": dtype, "endianness": sys.byteorder, "start": begin, "end": end}
        if item["shape"] != [len(text), hidden]:
            return f"answers a text of {len(text)} tokens with numbers of shape {item['shape']}"
        for key, value in expected.items():
            if item[key] != value:
                return f"answers text {k} with {key} {item[key]} in place of {value}"
    return None if size == end else f"answers with {size:,} bytes in place of {end:,}"

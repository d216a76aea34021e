"""Hidden states from `vllm serve --runner pooling`: raw bytes of every token, of which the positions asked about are kept.

Each request begins with a text of four tokens, the same all the time. Its states must be those of the first answer; so whatever stands
behind an address, a load balancer or a server started anew, no answer of another model is learnt from.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dskd.errors import TrainingFailed
from dskd.teachers.engines.base import Answers
from dskd.teachers.engines.served_engine import ServedEngine, in_requests, together
from dskd.teachers.http import Away, Reply
from dskd.teachers.options import ServedOptions
from dskd.teachers.questions import Question
from dskd.teachers.rounding import STATES, coarsest, computed_in

# The answer's shapes stand in one header, 105 characters a text, and a proxy between takes 4 KB of headers or little more.
TEXTS = 32
# What the states of one model may differ by. In float32 more than a probe allows: a kernel for batches of another shape may round to
# TF32, and that is no reason to end a training of days.
TOLERANCE = {**STATES, "float32": 1e-2}
# Each is 2·D bytes of every request; 16 bytes a token of the request are what may be spent beside its states.
_CANARY_TOKENS = 4
_FIELDS = ("index", "embed_dtype", "endianness", "start", "end", "shape")
_PATH = "/pooling"
_STAYS = "the last checkpoint stays, and the same command goes on from it"
_SERVE = f"fix: start the server as `harness teacher serve-command` says; {_STAYS}"
_OTHER = f"fix: one model behind all addresses, the one that the training began with; {_STAYS}"


class ServedHiddenStates(ServedEngine):
    """Asks pooling servers for the states that enter the teacher's head. Arguments and errors: see ServedEngine."""

    def __init__(self, served: ServedOptions) -> None:
        super().__init__(served)
        self._dtype, self._request_tokens = served.dtype, served.request_tokens
        self._canary: Question | None = None  # the first text of every request

    def ask(self, questions: Sequence[Question]) -> Future[Answers]:
        if self._canary is None:
            ids = questions[0].ids[-_CANARY_TOKENS - 1 :]
            self._canary = Question(ids, np.arange(len(ids) - 1))
        parts = [self._post(part) for part in in_requests(questions, self._request_tokens, TEXTS)]
        return together(parts, lambda hidden: {"hidden": torch.cat(hidden)})

    def ask_at(self, address: str, questions: Sequence[Question]) -> Answers:
        hidden = []
        for part in in_requests(questions, self._request_tokens, TEXTS):
            hidden.append(self._states(self.servers.ask(address, _PATH, self._body(part)), part))
        return {"hidden": torch.cat(hidden)}

    def _post(self, questions: list[Question]) -> Future[Tensor]:
        assert self._canary is not None
        canary = len(self._canary.positions)
        asked = [self._canary, *questions]

        def read(reply: Reply) -> Tensor:
            states = self._states(reply, asked)
            self._require_same(reply.address, states[:canary])
            return states[canary:]

        return self.servers.post(_PATH, self._body(asked), read)

    def _body(self, asked: Sequence[Question]) -> dict[str, Any]:
        return {
            "model": self.model,
            "input": [question.ids[:-1] for question in asked],
            "task": "token_embed",
            "encoding_format": "bytes",
            "embed_dtype": self._dtype,
            "endianness": sys.byteorder,
        }

    def _states(self, reply: Reply, asked: Sequence[Question]) -> Tensor:
        """The states at the positions of questions [positions, hidden], from an answer that is checked.

        Raises Away for half an answer, TrainingFailed for an answer to something else.
        """
        items = _described(reply)
        if items and len(reply.content) < items[-1]["end"]:
            raise Away(f"half an answer, {len(reply.content)} of {items[-1]['end']} bytes")
        lengths = [len(question.ids) - 1 for question in asked]
        if wrong := _difference(items, lengths, self._dtype, len(reply.content)):
            raise TrainingFailed(f"{reply.address}: {self.servers.line(wrong)}; {_SERVE}")
        dtype: torch.dtype = getattr(torch, self._dtype)
        # The states of prompts, which may be most of an answer, are never copied.
        rows = np.frombuffer(reply.content, np.uint8).reshape(sum(lengths), -1)[_places(asked)]
        states = torch.from_numpy(rows).view(dtype)
        if not states.isfinite().all():
            wrong_rows = int((~states.isfinite()).any(1).sum())
            fix = "dtype: bfloat16" if self._dtype == "float16" else "start the server with --dtype bfloat16 or float32"
            raise TrainingFailed(
                f"{reply.address}: {wrong_rows} of {len(states)} hidden states are not finite in {self._dtype}; fix: {fix}; {_STAYS}"
            )
        return states

    def _require_same(self, address: str, canary: Tensor) -> None:
        """TrainingFailed where another model answered than did first."""
        whose, first = self.first_answer(address, canary)
        if canary.shape != first.shape:
            raise TrainingFailed(
                f"{address}: has a hidden size of {canary.shape[1]}, and {whose} with {first.shape[1]}; {_OTHER}"
            )
        distance = ((canary.double() - first.double()).norm() / first.double().norm()).item()
        dtype = coarsest((self._dtype, computed_in(canary), computed_in(first)))
        limit = TOLERANCE[dtype]
        if not distance <= limit:
            raise TrainingFailed(
                f"{address}: its states differ by {distance:.3g} of their norm from those that were {whose} (limit in {dtype} "
                f"{limit:g}), so this is another model; {_OTHER}"
            )


def _places(questions: Sequence[Question]) -> np.ndarray:
    """Where the positions of questions stand among all tokens of their texts, one after the other [positions]."""
    begins = np.cumsum([0, *(len(question.ids) - 1 for question in questions)])
    return np.concatenate([begin + question.positions for begin, question in zip(begins[:-1], questions, strict=True)])


def _described(reply: Reply) -> list[dict[str, Any]]:
    """What an answer says of each of its texts; `end` is a number and `shape` a list."""
    try:
        found = json.loads(reply.headers["metadata"])["data"]
        items = [{key: item[key] for key in _FIELDS} for item in found]
        if all(type(item["end"]) is int and type(item["shape"]) is list for item in items):
            return items
    except (KeyError, TypeError, ValueError, RecursionError):
        pass
    raise TrainingFailed(f"{reply.address}: answers {_PATH} without the shapes of what it gives; {_SERVE}")


def _difference(items: list[dict[str, Any]], lengths: Sequence[int], dtype: str, size: int) -> str | None:
    """What is wrong with an answer of `size` bytes to texts of these lengths, by what it says of each; None where nothing is."""
    if len(items) != len(lengths):
        return f"answers {len(items)} of {len(lengths)} texts"
    hidden = items[0]["shape"][-1] if items[0]["shape"] else 0
    if type(hidden) is not int or hidden < 1:
        return f"answers with numbers of shape {items[0]['shape']}"
    number = getattr(torch, dtype).itemsize
    end = 0
    for k, (item, length) in enumerate(zip(items, lengths, strict=True)):
        begin, end = end, end + length * hidden * number
        expected = {"index": k, "embed_dtype": dtype, "endianness": sys.byteorder, "start": begin, "end": end}
        if item["shape"] != [length, hidden]:
            return f"answers a text of {length} tokens with numbers of shape {item['shape']}"
        for key, value in expected.items():
            if item[key] != value:
                return f"answers text {k} with {key} {item[key]} in place of {value}"
    return None if size == end else f"answers with {size:,} bytes in place of {end:,}"

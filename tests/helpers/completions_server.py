"""A server of /v1/completions on 127.0.0.1 that tells the log-probabilities of texts by a real model, as vLLM's does."""

from __future__ import annotations

import json
from http.server import ThreadingHTTPServer
from typing import Any

import torch

from helpers.pooling_server import Answers as PoolingAnswers
from helpers.pooling_server import PoolingServer


class CompletionsServer(PoolingServer):
    """Serves the model of a folder while it is entered."""

    def __enter__(self) -> CompletionsServer:
        super().__enter__()
        self._server.RequestHandlerClass = type("Handler", (_Answers,), {"owner": self})
        assert isinstance(self._server, ThreadingHTTPServer)
        return self

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What the log-probabilities of the prompts are."""
        texts = asked["prompt"]
        choices = [
            {"index": number, "text": "", "prompt_logprobs": self._of_text(ids, asked["prompt_logprobs"])}
            for number, ids in enumerate(texts)
        ]
        return {"model": self.name, "choices": choices}

    def _of_text(self, ids: list[int], most: int) -> list[Any]:
        with torch.no_grad():
            rows = self.model(torch.tensor([ids])).logits[0, :-1, : len(self.tokenizer)].log_softmax(-1)
        entries: list[Any] = [None]
        for row, token in zip(rows, ids[1:], strict=True):
            best = row.topk(most).indices.tolist()
            entries.append({str(k): {"logprob": float(row[k])} for k in dict.fromkeys([*best, token])})
        return entries


class _Answers(PoolingAnswers):
    def do_POST(self) -> None:
        if self.path != "/v1/completions":
            super().do_POST()
            return
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.owner, CompletionsServer)
        with self.owner.lock:
            answer = self.owner.answer(asked)
        self.send(json.dumps(answer).encode())

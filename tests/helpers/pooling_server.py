"""An imitated vLLM pooling server on 127.0.0.1: what /pooling, /tokenize, /v1/models, /version and /health answer, computed by
transformers in float32, and faults.

Every text is computed alone, so that answers do not depend on how texts are put into requests.

with PoolingServer(model_folder) as server:
    server.url                              # its address
    server.faults[3] = status(500)          # of the fourth request to /pooling; then it answers again
    server.down = True                      # every connection is closed without an answer
    server.requests, server.headers         # what /pooling was asked, also where it met a fault
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

# Answers a request in its own way.
Fault = Callable[["Answers"], None]


def status(code: int, message: str = "scripted") -> Fault:
    """An error as vLLM says it."""
    return lambda handler: handler.send(json.dumps({"error": {"message": message, "code": code}}).encode(), code)


def slow(seconds: float) -> Fault:
    """The usual answer, but late."""

    def answer(handler: Answers) -> None:
        if not handler.owner.ended.wait(seconds):
            handler.give(handler.states())

    return answer


def gone(handler: Answers) -> None:
    """No answer: the connection is closed."""
    handler.close_connection = True


def cut(handler: Answers) -> None:
    """Half of the usual answer, and the connection is closed."""
    handler.give(handler.states(), share=0.5)
    handler.close_connection = True


def short(handler: Answers) -> None:
    """A whole answer by its length, and half of what it says to hold."""
    states = handler.states()
    handler.give(states, content=handler.packed(states)[: -states[-1].numel()])


def changed(change: Callable[[list[Tensor]], list[Tensor]]) -> Fault:
    """The usual answer with other states."""
    return lambda handler: handler.give(change(handler.states()))


def described(change: Callable[[list[dict[str, Any]]], Any]) -> Fault:
    """The usual numbers under another description, which `change` makes of the right one; None leaves it out."""
    return lambda handler: handler.give(handler.states(), describe=change)


def in_training(body: Mapping[str, Any]) -> bool:
    """Whether a request is one of a training, which begins with a text of four tokens, and not one of its probe."""
    return len(body["input"][0]) <= 4


def with_nan(states: list[Tensor]) -> list[Tensor]:
    """States with one number that is none, in the last of them."""
    states[-1][-1, -1] = torch.nan
    return states


class PoolingServer:
    """The server. It serves while it is entered.

    Args:
        folder: Of the model that answers.
        name: Of the model on the server.
        counted: Which bodies of /pooling count as requests and may meet a fault; by default all.

    Attributes:
        url: Its address.
        faults: By the number of the request to /pooling, what it meets.
        down: Whether every request meets `gone`.
        requests, headers: Of every request to /pooling; names of headers in small letters.
        most_at_once: The most requests to /pooling that were open at the same time.
        delay: Seconds before each answer of /pooling.
        max_model_len: The most tokens of a text, as /v1/models lists it.
        change: Made of the states of every answer without a fault.
        tokenizer: Of /tokenize; None for a server without it.
    """

    def __init__(
        self, folder: Path, *, name: str = "teacher", counted: Callable[[Mapping[str, Any]], bool] = lambda body: True
    ) -> None:
        self.name = name
        self.counted = counted
        self.faults: dict[int, Fault] = {}
        self.down = False
        self.delay = 0.0
        self.max_model_len = 256
        self.change: Callable[[list[Tensor]], list[Tensor]] = list
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = self.open = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.serve(folder)

    def serve(self, folder: Path) -> None:
        """Answer with this model from now on."""
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
        has_tokenizer = (folder / "tokenizer.json").is_file()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder) if has_tokenizer else None

    def __enter__(self) -> PoolingServer:
        handler = type("Handler", (Answers,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        while self.open:  # a process that ends while a thread computes is aborted
            time.sleep(0.01)


class Answers(BaseHTTPRequestHandler):
    """One connection."""

    owner: PoolingServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are sent one after the other

    def do_GET(self) -> None:
        if self.owner.down:
            gone(self)
        elif self.path == "/health":
            self.send(b"")
        elif self.path == "/v1/models":
            listed = {"id": self.owner.name, "max_model_len": self.owner.max_model_len}
            self.send(json.dumps({"object": "list", "data": [listed]}).encode())
        elif self.path == "/version":
            self.send(json.dumps({"version": "0.32.0"}).encode())
        else:
            status(404, "Not Found")(self)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        owner = self.owner
        if owner.down:
            gone(self)
            return
        self.body = json.loads(body)
        if self.path == "/tokenize" and owner.tokenizer is not None:
            given = owner.tokenizer(self.body["prompt"], add_special_tokens=self.body["add_special_tokens"])
            self.send(json.dumps({"tokens": given["input_ids"], "count": len(given["input_ids"])}).encode())
            return
        with owner.lock:
            fault = None
            if owner.counted(self.body):
                fault = owner.faults.pop(len(owner.requests), None)
                owner.requests.append(self.body)
                owner.headers.append({name.lower(): value for name, value in self.headers.items()})
            owner.open += 1
            owner.most_at_once = max(owner.most_at_once, owner.open)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that is gone
                if owner.ended.wait(owner.delay):
                    gone(self)
                elif fault is not None:
                    fault(self)
                elif self.path != "/pooling":
                    status(404, "Not Found")(self)
                elif self.body["model"] != owner.name:
                    status(404, f"The model `{self.body['model']}` does not exist.")(self)
                else:
                    self.give(owner.change(self.states()))
        finally:
            with owner.lock:
                owner.open -= 1

    @torch.no_grad()
    def states(self) -> list[Tensor]:
        """Of each text [tokens, hidden], what its model's head would take."""
        with self.owner.lock:
            model = self.owner.model.model
            return [model(torch.tensor([ids])).last_hidden_state[0] for ids in self.body["input"]]

    def packed(self, states: list[Tensor]) -> bytes:
        """Their numbers in the dtype that was asked for."""
        dtype = getattr(torch, self.body["embed_dtype"])
        return torch.cat([each.to(dtype).flatten() for each in states]).view(torch.uint8).numpy().tobytes()

    def give(
        self,
        states: list[Tensor],
        *,
        share: float = 1.0,
        content: bytes | None = None,
        describe: Callable[[list[dict[str, Any]]], Any] = list,
    ) -> None:
        """Answer with these states as vLLM does: in chunks, with their shapes in a header.

        share: Of the bytes that are sent. content: Other bytes. describe: Changes the shapes.
        """
        size = getattr(torch, self.body["embed_dtype"]).itemsize
        items, end = [], 0
        for index, each in enumerate(states):
            begin, end = end, end + each.numel() * size
            item = {"index": index, "embed_dtype": self.body["embed_dtype"], "endianness": self.body["endianness"]}
            items.append({**item, "start": begin, "end": end, "shape": list(each.shape)})
        content = self.packed(states) if content is None else content
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Transfer-Encoding", "chunked")
        if (data := describe(items)) is not None:
            self.send_header("metadata", json.dumps({"model": self.owner.name, "data": data}))
        self.end_headers()
        sent = content[: int(len(content) * share)]
        self.wfile.write(b"%x\r\n%s\r\n" % (len(sent), sent))
        if share == 1:
            self.wfile.write(b"0\r\n\r\n")

    def send(self, content: bytes, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a body."""
        self.send_response(code)
        for name, value in ({"Content-Type": "application/json"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass

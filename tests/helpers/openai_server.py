"""An imitated OpenAI endpoint on 127.0.0.1, for the real client: (chat) completions with scripted replies, and faults.

with OpenAIServer(lambda prompt: "Verdict: 1") as server:
    ...                                    # server.url is the base URL
    server.faults = [status(500), cut]     # of the next requests, one each; then it answers again
    server.requests                        # bodies of what was asked, headers in server.headers
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Answers a request in its own way, instead of the script.
Fault = Callable[["Answers"], None]
Said = str | Mapping[str, Any]
# The prompt to the reply: a text, or parts of the choice that differ from the usual ones; or a list of them, one a choice.
Script = Callable[[Any], "Said | list[Said]"]


def status(code: int, message: str = "scripted", headers: Mapping[str, str] | None = None) -> Fault:
    """An error in OpenAI's form."""

    def answer(handler: Answers) -> None:
        handler.send(json.dumps({"error": {"message": message, "type": "scripted", "code": code}}), code, headers)

    return answer


def text(body: str, content_type: str = "application/json", code: int = 200) -> Fault:
    """A body that may be no JSON, or none of a chat completion."""
    return lambda handler: handler.send(body, code, {"Content-Type": content_type})


def slow(seconds: float) -> Fault:
    """The usual answer, but late."""

    def answer(handler: Answers) -> None:
        time.sleep(seconds)
        handler.complete()

    return answer


def cut(handler: Answers) -> None:
    """Half an answer, and the connection closes."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "x", "choices": [{"mess')
    handler.close_connection = True


class _QuietServer(ThreadingHTTPServer):
    """Says nothing of a client that has gone away."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class OpenAIServer:
    """The endpoint. It serves while it is entered.

    Attributes:
        requests, headers: Of every request, also of those that met a fault; names of headers in small letters.
        faults: What the next requests meet, one each.
        broken: What every request meets, once `faults` are used up; None for the script.
        most_at_once: The most requests that were open at the same time.
    """

    def __init__(self, script: Script, *, delay: float = 0.0) -> None:
        self.script, self.delay = script, delay
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.faults: list[Fault] = []
        self.broken: Fault | None = None
        self.most_at_once = self.open = 0
        self.lock = threading.Lock()

    def __enter__(self) -> OpenAIServer:
        handler = type("Handler", (Answers,), {"owner": self})
        self._server = _QuietServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def prompts(self) -> list[str]:
        """The prompts that were asked."""
        return [prompt_of(request) for request in self.requests]


def prompt_of(request: Mapping[str, Any]) -> Any:
    """What a request asks: its last message, or what it wants to be continued."""
    return request["messages"][-1]["content"] if "messages" in request else request["prompt"]


class Answers(BaseHTTPRequestHandler):
    """One connection."""

    owner: OpenAIServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        owner = self.owner
        with owner.lock:
            owner.requests.append(self.body)
            owner.headers.append({name.lower(): value for name, value in self.headers.items()})
            owner.open += 1
            owner.most_at_once = max(owner.most_at_once, owner.open)
            fault = owner.faults.pop(0) if owner.faults else owner.broken
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # a client that was killed
                if fault is not None:
                    fault(self)
                else:
                    time.sleep(owner.delay)
                    self.complete()
        finally:
            with owner.lock:
                owner.open -= 1

    def complete(self) -> None:
        """Answer as the script says."""
        prompt = prompt_of(self.body)
        said = self.owner.script(prompt)
        every = said if isinstance(said, list) else [said] * self.body.get("n", 1)
        is_chat = self.path.endswith("/chat/completions")
        counted = len(prompt) // 4, 7 * len(every)
        completion = {
            "id": "cmpl-1",
            "object": "chat.completion" if is_chat else "text_completion",
            "created": 1,
            "model": self.body["model"],
            "choices": [_choice(number, each, is_chat=is_chat) for number, each in enumerate(every)],
            "usage": {"prompt_tokens": counted[0], "completion_tokens": counted[1], "total_tokens": sum(counted)},
        }
        self.send(json.dumps(completion))

    def send(self, body: str, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a body."""
        content = body.encode()
        self.send_response(code)
        for name, value in ({"Content-Type": "application/json"} | dict(headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _choice(number: int, said: Said, *, is_chat: bool) -> dict[str, Any]:
    reply: dict[str, Any] = {"content": said} if isinstance(said, str) else dict(said)
    shared = {"index": number, "finish_reason": reply.pop("finish_reason", "stop")}
    if not is_chat:
        return {**shared, "text": reply["content"], "logprobs": None}
    return {**shared, "message": {"role": "assistant", "content": "", **reply}}

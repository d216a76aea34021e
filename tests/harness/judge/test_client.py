"""The client of a judge's endpoint: replies, and one line for each thing that goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from dskd.errors import InputError
from harness.endpoints.client import EndpointClient
from harness.endpoints.replies import Choice, Reply
from harness.judge.endpoint import JudgeEndpoint
from helpers.openai_server import Fault, OpenAIServer, slow, status, text

pytest.importorskip("openai", reason="the extra judge is not installed")

SOON = {"retry-after-ms": "10"}
ASKED = [{"role": "user", "content": "which?"}]


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(lambda prompt: "Verdict: tie") as serving:
        yield serving


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch, server: OpenAIServer) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.broken = None


def ask(server: OpenAIServer, *, timeout: float = 10, retries: int = 1) -> Reply:
    async def once() -> Reply:
        client = EndpointClient(JudgeEndpoint(server.url, timeout=timeout, retries=retries), "judge")
        try:
            return await client.chat(ASKED, {"temperature": 0.0}, "prompt '7'")
        finally:
            await client.close()

    return asyncio.run(once())


def test_a_reply_has_its_text_and_what_it_cost(server: OpenAIServer) -> None:
    assert ask(server) == Reply((Choice("Verdict: tie", None, "stop"),), "judge", 1, 7)


CHAT = '{"model": "m", "choices": [{"finish_reason": "stop", "message": {"content": "x"}}]}'


def test_a_server_that_counts_no_tokens_is_taken_as_it_is(server: OpenAIServer) -> None:
    for usage in ("null", "{}", '{"prompt_tokens": "many"}', "5"):
        server.broken = text(CHAT.replace("{", f'{{"usage": {usage}, ', 1))
        assert ask(server) == Reply((Choice("x", None, "stop"),), "m", None, None)


NO_CHAT = "something else than a chat completion"
FAULTS: dict[str, tuple[Fault, str, bool]] = {
    "500": (status(500, headers=SOON), "fails with status 500 (scripted)", True),
    "503": (status(503, headers=SOON), "fails with status 503", True),
    "429": (status(429, "slow down", headers=SOON), "asks to wait (slow down)", True),
    "401": (status(401), "refuses the API key", False),
    "403": (status(403), "refuses the API key", False),
    "404": (status(404, "The model does not exist."), "has no model 'judge'", False),
    "400": (status(400, "unknown parameter: seed"), "--parameter NAME=null", False),
    "422": (status(422, "temperature is no number"), "refuses the request of prompt '7' with status 422", False),
    "too long": (status(400, "This model's maximum context length is 10 tokens"), "cannot take prompt '7'", True),
    "413": (status(413, "big"), "a longer context", True),
    "a page": (text("<html>hello</html>", "text/html"), NO_CHAT, False),
    "broken JSON": (text('{"choices": ['), NO_CHAT, False),
    "other JSON": (text('{"hello": 1}'), NO_CHAT, False),
    "no choices": (text('{"choices": []}'), NO_CHAT, False),
    "an error that is none": (text('{"error": {"message": "no such thing"}}'), "no such thing", False),
    "a list": (text("[]"), NO_CHAT, False),
    "half a message": (text('{"choices": [{"message": null}]}'), NO_CHAT, False),
    "choices that are none": (text('{"choices": 7}'), '"choices":7', False),
    "a choice that is none": (text('{"choices": ["x"]}'), NO_CHAT, False),
    "a number": (text('{"choices": [{"message": {"content": 5}}]}'), NO_CHAT, False),
    "terminal codes": (status(400, "\x1b[31mred\n\nlines"), "( [31mred lines)".replace("( ", "("), False),
    "a long error": (status(400, "x" * 10_000), "x…", False),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_goes_wrong_is_one_line_with_a_fix(server: OpenAIServer, name: str) -> None:
    server.broken, words, resumes = FAULTS[name]
    with pytest.raises(InputError) as raised:
        ask(server)
    message = str(raised.value)
    assert message.startswith(f"judge at {server.url}: ")
    assert words in message
    assert message.isprintable()
    assert "; fix: " in message
    assert len(message) < 700
    assert ("the same command resumes" in message) == resumes
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_a_server_that_is_too_slow_is_one_line(server: OpenAIServer) -> None:
    server.broken = slow(2)
    with pytest.raises(InputError, match=r"no reply within 0\.2 s.*--timeout"):
        ask(server, timeout=0.2, retries=0)


def test_a_server_that_asks_to_wait_is_waited_for(server: OpenAIServer) -> None:
    server.faults = [status(429, headers={"Retry-After": "0.7"})]
    start = time.monotonic()
    assert ask(server).choices[0].text == "Verdict: tie"
    assert time.monotonic() - start > 0.7

"""The client on an API of completions, and what a server refuses of single prompts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.endpoints.client import EndpointClient, PromptRefused
from harness.endpoints.endpoint import Endpoint, Words
from harness.endpoints.log import ReplyLog
from harness.endpoints.replies import Choice, Reply
from helpers.openai_server import OpenAIServer, status, text

pytest.importorskip("openai", reason="the extra endpoints is not installed")

WORDS = Words(
    "teacher", "the command", "endpoints", "--endpoint", "--model", "--timeout", "--parallel", "--parameter X=null"
)
NO_COMPLETION = "something else than a completion"


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(lambda prompt: f" after {prompt}") as serving:
        yield serving


def complete(server: OpenAIServer, prompt: str | Sequence[int], **parameters: object) -> Reply:
    async def once() -> Reply:
        client = EndpointClient(Endpoint(server.url, timeout=10, retries=2, words=WORDS), "m")
        try:
            return await client.complete(prompt, parameters, "prompt 7")
        finally:
            await client.close()

    return asyncio.run(once())


def test_a_text_and_the_ids_of_its_tokens_are_continued(server: OpenAIServer) -> None:
    assert complete(server, "abcdefgh", max_tokens=3) == Reply((Choice(" after abcdefgh", None, "stop"),), "m", 2, 7)
    assert complete(server, [1, 2, 3]).choices[0].text == " after [1, 2, 3]"
    assert server.requests == [
        {"model": "m", "prompt": "abcdefgh", "max_tokens": 3},
        {"model": "m", "prompt": [1, 2, 3]},
    ]


def test_every_choice_is_read_and_retries_are_counted(server: OpenAIServer) -> None:
    server.script = lambda prompt: ["one", {"content": "two", "finish_reason": "length"}]
    server.faults = [status(500, headers={"retry-after-ms": "1"})] * 2
    reply = complete(server, "p", n=2)
    assert reply.choices == (Choice("one", None, "stop"), Choice("two", None, "length"))
    assert (reply.retries, reply.completion_tokens) == (2, 14)


@pytest.mark.parametrize("body", ['{"choices": [{"text": 5}]}', '{"choices": [{"message": {"content": "x"}}]}', "[]"])
def test_what_is_no_completion_is_one_line(server: OpenAIServer, body: str) -> None:
    server.broken = text(body)
    with pytest.raises(
        InputError, match=rf"^teacher at \S+: answers with {NO_COMPLETION} .*; fix: give the --endpoint of"
    ):
        complete(server, "p")


def test_a_prompt_that_a_server_does_not_answer_is_told_from_other_refusals(server: OpenAIServer) -> None:
    found = {}
    for message in ("This model's maximum context length is 10 tokens", "unknown parameter: seed"):
        server.broken = status(400, message)
        with pytest.raises(InputError) as raised:
            complete(server, "p")
        found[message] = raised.value
    too_long, unknown = found.values()
    assert isinstance(too_long, PromptRefused)
    assert too_long.reason == "too_long"
    assert not isinstance(unknown, PromptRefused)


def test_a_prompt_that_the_content_filter_stops_is_refused_and_no_error_of_the_request(server: OpenAIServer) -> None:
    server.broken = text('{"error": {"message": "filtered", "code": "content_filter"}}', code=400)
    with pytest.raises(PromptRefused, match="its content filter stops prompt 7") as raised:
        complete(server, "p")
    assert raised.value.reason == "filtered"


def test_a_line_that_a_killed_process_left_is_cut_off(tmp_path: Path) -> None:
    log = ReplyLog(tmp_path / "log.jsonl")
    log.add({"a": 1})
    log.add({"a": 2})
    log.path.write_bytes(log.path.read_bytes() + b'{"a": 3, "b')
    assert list(log.rows()) == [(1, {"a": 1}), (2, {"a": 2})]
    log.add({"a": 3})
    assert [row["a"] for _, row in log.rows()] == [1, 2, 3]

"""Requests to several addresses: who gets them, what becomes of those that meet a fault, and what a message never holds."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import LlamaConfig, LlamaForCausalLM

from dskd.errors import InputError, TrainingFailed
from dskd.teachers.addresses import checked_address
from dskd.teachers.http import Away, Reply, model_names
from dskd.teachers.options import ServedOptions
from dskd.teachers.servers import TeacherServers
from helpers.pooling_server import Answers, PoolingServer, cut, gone, slow, status
from helpers.vllm_servers import free_port

VARIABLE = "DSKD_TEST_KEY"
KEY = "sk-very-secret-1234"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=40, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def servers(model: Path) -> Iterator[list[PoolingServer]]:
    with PoolingServer(model) as first, PoolingServer(model) as second:
        yield [first, second]


def _client(*servers: PoolingServer | str, **changes: Any) -> TeacherServers:
    addresses = tuple(server if isinstance(server, str) else server.url for server in servers)
    options = {"api_key_env": VARIABLE, "timeout": 5.0, "patience": 5.0, "in_flight": 2, **changes}
    return TeacherServers(addresses, **options)


def _ask(client: TeacherServers, number: int = 0, read: Any = lambda reply: reply) -> Any:
    body = {"model": "teacher", "input": [[number]], "embed_dtype": "float32", "endianness": "little"}
    return client.post("/pooling", body, read)


def test_requests_go_to_the_address_with_the_fewest_and_wait_in_their_order(servers: list[PoolingServer]) -> None:
    for server in servers:
        server.delay = 0.2
    with_client = _client(*servers)
    begin = time.perf_counter()
    replies = [_ask(with_client, number) for number in range(8)]
    assert {reply.result().address for reply in replies} == {server.url for server in servers}
    with_client.close()
    assert time.perf_counter() - begin < 1.2  # two by two at each
    assert [server.most_at_once for server in servers] == [2, 2]
    order = [[request["input"][0][0] for request in server.requests] for server in servers]
    assert sorted(number for own in order for number in own) == list(range(8))
    for own in order:
        assert len(own) == 4
        assert sorted(own[:2]) < sorted(own[2:])


@pytest.mark.parametrize("fault", [status(503), status(408), status(429), gone, cut, slow(2.0)])
def test_what_meets_a_fault_moves_to_another_address_at_once(servers: list[PoolingServer], fault: Any) -> None:
    client = _client(*servers, timeout=0.5, patience=0.0)
    for number in range(4):
        servers[0].faults[number] = fault
    assert len([_ask(client).result() for _ in range(4)]) == 4
    assert client.figures()["requests"] == 4
    assert client.figures()["retries"] >= 1
    client.close()


def test_an_answer_that_cannot_be_read_is_asked_for_again(servers: list[PoolingServer]) -> None:
    client, seen = _client(servers[0]), []

    def read(reply: Reply) -> int:
        seen.append(reply)
        if len(seen) == 1:
            raise Away("half of it")
        return len(reply.content)

    assert _ask(client, read=read).result() == 32 * 4
    client.close()


def test_an_address_that_was_away_is_looked_at_before_it_is_used_again(servers: list[PoolingServer]) -> None:
    first, events = servers[0], []
    client = _client(first)

    def look(address: str) -> None:
        events.append(("looked", len(first.requests)))
        client.ask(
            address, "/pooling", {"model": "teacher", "input": [[1]], "embed_dtype": "float32", "endianness": "little"}
        )
        if len(events) == 1:
            raise Away("not yet")

    client.on_reconnect = look
    _ask(client).result()
    assert events == []
    first.faults[1] = gone
    _ask(client).result()
    # The fault is the second request, then two looks with a request each, then the answer.
    assert events == [("looked", 2), ("looked", 3)]
    assert len(first.requests) == 5
    client.close()


def test_what_the_look_finds_wrong_ends_every_request(servers: list[PoolingServer]) -> None:
    client = _client(servers[0])

    def look(address: str) -> None:
        raise TrainingFailed(f"{address}: another model")

    client.on_reconnect = look
    servers[0].faults |= {0: gone, 1: gone}
    waiting = [_ask(client) for _ in range(6)]
    for each in [*waiting[:2], *waiting[4:], _ask(client)]:
        with pytest.raises(TrainingFailed, match="another model"):
            each.result()
    client.close()


def test_an_answer_of_a_server_that_may_have_ended_is_not_used(servers: list[PoolingServer]) -> None:
    """Both were sent before one of them met a closed connection; the other answer comes after it."""
    server = servers[0]
    server.faults |= {0: slow(1.0), 1: gone}
    client = _client(server)
    late, lost = _ask(client, 1), _ask(client, 2)
    lost.result()
    late.result()
    assert [request["input"] for request in server.requests].count([[1]]) == 2
    client.close()


def test_a_time_out_says_nothing_of_the_other_answers_of_its_address(servers: list[PoolingServer]) -> None:
    """Both were sent before one of them took too long; the other answer comes after it."""
    server = servers[0]
    server.faults |= {0: slow(3.0), 1: slow(1.3)}
    client = _client(server, timeout=1.5)
    late = _ask(client, 1)
    time.sleep(0.8)
    other = _ask(client, 2)
    other.result()
    late.result()
    assert [request["input"] for request in server.requests] == [[[1]], [[2]], [[1]]]
    client.close()


def test_a_late_answer_does_not_hide_why_its_address_was_set_aside(
    servers: list[PoolingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dskd.teachers.servers._PAUSES", (30.0, 30.0))
    server = servers[0]
    server.faults |= {0: status(503), 1: slow(0.4)}
    client = _client(server, patience=1.0)
    lost, late = _ask(client, 1), _ask(client, 2)
    late.result()
    with pytest.raises(TrainingFailed, match=rf"^{server.url}: status 503 \(scripted\), no answer for 1 s"):
        lost.result()
    client.close()


def test_a_request_that_is_cancelled_at_its_turn_hands_it_on(servers: list[PoolingServer]) -> None:
    client = _client(servers[0], in_flight=1)

    async def cancel_at_its_turn() -> None:
        place = await client._free_place(0)
        second, third = (asyncio.create_task(client._free_place(number)) for number in (1, 2))
        await asyncio.sleep(0)
        place.open -= 1
        client._hand_out()
        second.cancel()
        assert (await asyncio.wait_for(third, 2)).open == 1

    asyncio.run_coroutine_threadsafe(cancel_at_its_turn(), client._loop).result()
    client.close()


def test_an_answer_that_takes_long_to_read_holds_up_no_other(servers: list[PoolingServer]) -> None:
    client, read = _client(servers[0]), threading.Event()
    long = _ask(client, 1, read=lambda reply: read.wait(10))
    _ask(client, 2).result(5)
    read.set()
    assert long.result()
    client.close()


def test_what_is_asked_while_it_closes_ends_too(servers: list[PoolingServer]) -> None:
    """Such as by a probe, in a thread of its own: a request is either dropped or refused, and nothing waits for ever."""
    for _ in range(20):
        client, ended = _client(servers[0]), threading.Event()

        def ask(client: TeacherServers = client, ended: threading.Event = ended) -> None:
            try:
                while True:
                    client.ask(servers[0].url, "/version")
            except (RuntimeError, CancelledError):
                ended.set()

        threading.Thread(target=ask, daemon=True).start()
        closing = [threading.Thread(target=client.close, daemon=True) for _ in range(2)]
        time.sleep(0.01)
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join(5)
            assert not thread.is_alive()
        assert ended.wait(5)
        with pytest.raises(RuntimeError, match="closed"):
            client.ask(servers[0].url, "/version")


PROXIES = ("HTTP_PROXY", "ALL_PROXY")


def test_no_proxy_sees_what_stays_on_this_machine_and_one_of_the_environment_what_does_not(
    servers: list[PoolingServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in PROXIES:
        monkeypatch.setenv(name, servers[1].url)
    for host in ("127.0.0.1", "localhost"):
        client = _client(servers[0].url.replace("127.0.0.1", host))
        assert _ask(client).result()
        client.close()
    assert len(servers[0].requests) == 2
    assert not servers[1].requests
    client = _client(
        "http://teacher.invalid"
    )  # the imitated server takes it for a request to a path that it does not have
    with pytest.raises(InputError, match=r"^http://teacher\.invalid: answers /pooling with status 404"):
        _ask(client).result()
    assert [headers["host"] for headers in servers[1].headers] == ["teacher.invalid"]
    client.close()


@pytest.mark.parametrize(
    "proxy", ["socks4://me:secret@proxy:1", "socks5://me:secret@proxy:1", "http://me:secret@proxy:port"]
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.delenv("all_proxy", raising=False)
    with pytest.raises(InputError, match="a proxy that cannot be used; fix: ") as error:
        _client("http://teacher.invalid")
    assert "secret" not in str(error.value)


def test_waiting_ends_with_a_line_that_says_what_happened_last(
    servers: list[PoolingServer], caplog: pytest.LogCaptureFixture
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    servers[0].down = True
    client = _client(nobody, servers[0], patience=0.6)
    begin = time.perf_counter()
    with pytest.raises(TrainingFailed) as error:
        _ask(client).result()
    assert 0.5 < time.perf_counter() - begin < 3
    said = str(error.value)
    assert f"{nobody}: Connection refused; {servers[0].url}: Server disconnected" in said
    assert said.endswith(
        "; fix: start the server again; the last checkpoint stays, and the same command goes on from it"
    )
    assert [message for message in caplog.messages if "the training waits up to" in message][1:] == []
    client.close()


def test_a_small_question_does_not_wait_as_long_as_a_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dskd.teachers.http._CONNECT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        client = _client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=60, patience=0)
        with pytest.raises(
            TrainingFailed, match=r"no answer within 0\.3 s; fix: start the server, or give the address"
        ):
            client.get("/v1/models", model_names).result(timeout=10)
        client.close()


def test_a_server_that_is_healthy_and_answers_nothing_is_given_up(servers: list[PoolingServer]) -> None:
    servers[0].faults = {number: status(500) for number in range(1000)}
    client = _client(servers[0], patience=0.8)
    with pytest.raises(TrainingFailed, match=r"status 500 \(scripted\), no answer for \d s"):
        _ask(client).result()
    client.close()


REFUSED = {
    401: "wants an API key, status 401 (scripted); fix: put the right one into DSKD_TEST_KEY",
    403: "wants an API key, status 403 (scripted); fix: put the right one into DSKD_TEST_KEY",
    404: "answers /pooling with status 404 (scripted); its models: teacher; fix: give one of them as model",
    413: "cannot take the request, status 413 (scripted); fix: start the server with a larger --max-model-len",
    422: "refuses the request, status 422 (scripted); fix: ",
    501: "answers /pooling with status 501 (scripted); its models: teacher; fix: ",
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_only_the_user_can_change_is_told_at_once(servers: list[PoolingServer], code: int) -> None:
    client = _client(*servers, patience=60.0)
    for server in servers:
        server.faults[0] = status(code)
    with pytest.raises(InputError) as error:
        _ask(client).result()
    assert f": {REFUSED[code]}" in str(error.value)
    assert client.figures()["retries"] == 0
    client.close()


def test_the_key_goes_into_a_header_and_into_no_message(
    servers: list[PoolingServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    server = servers[0]
    client = _client(server, patience=0.3)
    _ask(client).result()
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    server.faults[1] = status(401, f"no such key\n{KEY}")
    with pytest.raises(InputError) as refused:
        _ask(client).result()
    assert "refuses the API key, status 401 (no such key [API key])" in str(refused.value)
    server.faults |= {number: status(500, f"for {KEY}") for number in range(2, 100)}
    with pytest.raises(TrainingFailed) as failed:
        _ask(client).result()
    assert "status 500 (for [API key])" in str(failed.value)
    assert caplog.messages
    assert KEY not in caplog.text + str(refused.value) + str(failed.value) + repr(client.__dict__)
    client.close()


def test_a_key_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "two words")
    with pytest.raises(InputError, match=f"^{VARIABLE}: is no API key"):
        _client("http://127.0.0.1:1")


def test_closing_drops_what_is_under_way_and_leaves_no_thread(servers: list[PoolingServer]) -> None:
    servers[0].delay = 20.0
    client = _client(servers[0], timeout=60.0)
    pending = [_ask(client) for _ in range(5)]
    time.sleep(0.2)
    begin = time.perf_counter()
    client.close()
    client.close()
    assert time.perf_counter() - begin < 2
    assert all(each.cancelled() for each in pending)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dskd-")]


def test_connections_are_kept(servers: list[PoolingServer], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    set_up = Answers.setup
    monkeypatch.setattr(Answers, "setup", lambda handler: (opened.append(1), set_up(handler))[1])
    client = _client(servers[0])
    for _ in range(5):
        _ask(client).result()
    assert client.get("/v1/models", model_names).result() == ["teacher"]
    assert len(opened) == 1
    client.close()


def test_bytes_are_counted_both_ways(servers: list[PoolingServer]) -> None:
    client = _client(servers[0])
    before = client.figures()
    assert (before["bytes_sent"], before["bytes_received"]) == (0, 0)
    _ask(client).result()
    after = client.figures()
    assert 64 < after["bytes_sent"] < 600
    assert 128 < after["bytes_received"] < 600
    client.close()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:8000", "addresses: '127.0.0.1:8000' is no address; fix: give it as http://127.0.0.1:8000"),
        ("ftp://host", "'ftp://host' is no address"),
        ("http://", "'http://' is no address"),
        ("http://host:port", "'http://host:port' is no address"),
        ("http://me:secret@host:1", "addresses: http://host:1 holds a password; fix: leave it out"),
        ("me:secret@host", "addresses: is no address"),
        ("http://host/?key=1", "addresses: http://host has something after its path"),
        ("http://host:1/v1/", "addresses: http://host:1/v1 ends with /v1; fix: http://host:1"),
    ],
)
def test_what_is_no_address_is_told_without_a_password(address: str, said: str) -> None:
    with pytest.raises(ValidationError) as invalid:
        ServedOptions(addresses=(address,))
    with pytest.raises(InputError) as refused:
        checked_address(address)
    for error in (invalid, refused):
        assert said in str(error.value)
        assert "secret" not in str(error.value)


def test_addresses_are_the_same_with_and_without_a_slash() -> None:
    assert checked_address("https://host/teacher/") == "https://host/teacher"
    with pytest.raises(ValueError, match="http://host:1 is there twice"):
        ServedOptions(addresses=("http://host:1", "http://host:1/"))

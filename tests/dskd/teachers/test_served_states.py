"""Hidden states over the network: those of the model, or one line that says why not; nothing is accepted from another model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from dskd.errors import InputError, TrainingFailed
from dskd.teachers.engines.served import open_served_engine
from dskd.teachers.engines.served_engine import ServedEngine
from dskd.teachers.options import ServedOptions
from dskd.teachers.questions import Question
from helpers.pooling_server import PoolingServer, changed, cut, described, gone, short, slow, status, with_nan


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model; `other` beside it is one of the same shape, `wide` one of another."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, hidden) in enumerate((("model", 32), ("other", 32), ("wide", 48))):
        torch.manual_seed(seed)
        sizes = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=60, hidden_size=hidden, **sizes)).save_pretrained(folder / name)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[PoolingServer]:
    with PoolingServer(folder / "model") as server:
        yield server


def _questions(lengths: Sequence[int], seed: int = 0) -> list[Question]:
    source = np.random.default_rng(seed)
    return [Question(source.integers(60, size=n).tolist(), np.arange(min(3, n - 2), n - 1)) for n in lengths]


def _expected(folder: Path, questions: Sequence[Question]) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    with torch.no_grad():
        states = [model.model(torch.tensor([question.ids])).last_hidden_state[0] for question in questions]
    return torch.cat([own[torch.from_numpy(q.positions)] for own, q in zip(states, questions, strict=True)])


def _engine(*servers: PoolingServer, **options: Any) -> ServedEngine:
    given = {"dtype": "float32", "timeout": 5.0, "patience": 5.0, **options}
    return open_served_engine(ServedOptions(addresses=tuple(server.url for server in servers), **given))


def _ask(engine: ServedEngine, questions: Sequence[Question]) -> Tensor:
    return engine.ask(questions).result()["hidden"]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_the_states_at_the_positions_come_in_the_order_of_the_questions(
    server: PoolingServer, folder: Path, dtype: str, tolerance: float
) -> None:
    questions = _questions([9, 2, 30, 5, 17] * 20)
    with _engine(server, dtype=dtype, request_tokens=200) as engine:
        given = _ask(engine, questions)
    assert given.dtype == getattr(torch, dtype)
    torch.testing.assert_close(given.float(), _expected(folder / "model", questions), rtol=tolerance, atol=tolerance)


def test_requests_hold_about_as_many_tokens_as_asked_and_never_the_last_label(server: PoolingServer) -> None:
    questions = _questions([21, 11, 31, 81, 6, 6])
    with _engine(server, request_tokens=40) as engine:
        _ask(engine, questions)
    canary, sent = [], []
    for request in sorted(server.requests, key=lambda request: request["input"][1]):
        canary.append(request["input"][0])
        sent += request["input"][1:]
    assert len(server.requests) == 4
    assert canary == [questions[0].ids[-5:-1]] * 4
    assert sorted(sent) == sorted(question.ids[:-1] for question in questions)


def test_a_request_holds_no_more_texts_than_a_header_has_room_for(server: PoolingServer) -> None:
    with _engine(server) as engine:
        _ask(engine, _questions([4] * 100))
    assert [len(request["input"]) - 1 for request in server.requests].count(32) == 3


def test_the_model_need_not_be_named_where_there_is_one(server: PoolingServer) -> None:
    server.name = "some/model"
    with _engine(server) as engine:
        assert engine.model == "some/model"
    with _engine(server, model="another") as engine, pytest.raises(InputError) as error:
        _ask(engine, _questions([5]))
    assert str(error.value).startswith(f"{server.url}: answers /pooling with status 404 (The model `another` does not")
    assert "its models: some/model; fix: give one of them as model" in str(error.value)


FAULTS = {
    "an error of the server": (status(500), r"status 500 \(scripted\)"),
    "a closed connection": (gone, "Server disconnected without sending a response"),
    "half an answer": (cut, "incomplete chunked read"),
    "fewer bytes than it says": (short, r"half an answer, \d+ of \d+ bytes"),
    "no answer in time": (slow(2.0), "no answer within 0.5 s"),
    "too many requests": (status(429), r"status 429 \(scripted\)"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_passing_fault_is_waited_out_and_told(
    server: PoolingServer, folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    fault, said = FAULTS[name]
    server.faults[0] = fault
    questions = _questions([9, 5])
    with _engine(server, timeout=0.5) as engine:
        torch.testing.assert_close(_ask(engine, questions), _expected(folder / "model", questions))
        assert engine.figures()["retries"] == 1
    begun, ended = caplog.messages
    assert begun.startswith(f"{server.url}: ")
    assert begun.endswith("; the training waits up to 5 s")
    import re

    assert re.search(said, begun), begun
    assert ended.startswith(f"{server.url}: answers again after ")


WRONG: dict[str, tuple[Callable[..., None], str]] = {
    "a text less": (changed(lambda states: states[:-1]), r"answers 2 of 3 texts"),
    "a token less": (
        changed(lambda states: [each[1:] for each in states]),
        r"a text of 4 tokens with numbers of shape \[3, 32\]",
    ),
    "one vector a text": (changed(lambda states: [each[0] for each in states]), r"with numbers of shape \[32\]"),
    "another dtype": (
        described(lambda items: [{**item, "embed_dtype": "float16"} for item in items]),
        "embed_dtype float16 in place of float32",
    ),
    "bytes the other way round": (
        described(lambda items: [{**item, "endianness": "big"} for item in items]),
        "endianness big in place of little",
    ),
    "no shapes": (described(lambda _: None), "answers /pooling without the shapes of what it gives"),
    "an end of null": (
        described(lambda items: [{**item, "end": None} for item in items]),
        "without the shapes of what it gives",
    ),
    "an end beyond all numbers": (
        described(lambda items: [{**item, "end": float("inf")} for item in items]),
        "without the shapes of what it gives",
    ),
    "a shape of null": (
        described(lambda items: [{**item, "shape": None} for item in items]),
        "without the shapes of what it gives",
    ),
    "a shape of texts": (
        described(lambda items: [{**item, "shape": ["4", "32"]} for item in items]),
        r"with numbers of shape \['4', '32'\]",
    ),
    "states of no numbers": (
        described(lambda items: [{**item, "start": 0, "end": 0, "shape": [item["shape"][0], 0]} for item in items]),
        r"with numbers of shape \[4, 0\]",
    ),
    "lines and more lines": (
        described(lambda items: [{**item, "embed_dtype": "float16\n" * 999} for item in items]),
        "embed_dtype float16 float16",
    ),
    "NaN": (
        changed(with_nan),
        r"1 of 10 hidden states are not finite in float32; fix: start the server with --dtype bfloat16",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_refused_in_one_line(server: PoolingServer, name: str) -> None:
    fault, said = WRONG[name]
    server.faults[0] = fault
    with _engine(server) as engine, pytest.raises(TrainingFailed, match=said) as error:
        _ask(engine, _questions([9, 5]))
    assert str(error.value).startswith(f"{server.url}: ")
    assert "the last checkpoint stays" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_float16_cannot_hold_is_refused_with_bfloat16_as_the_fix(server: PoolingServer) -> None:
    server.faults[0] = changed(lambda states: [each * 1e5 for each in states])
    with _engine(server, dtype="float16") as engine, pytest.raises(TrainingFailed, match="fix: dtype: bfloat16"):
        _ask(engine, _questions([9, 5]))


def _sibling(model: Any, share: float) -> None:
    """Another checkpoint: weights with noise of a share of their deviation."""
    torch.manual_seed(7)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights += share * weights.std() * torch.randn_like(weights)


def test_a_sibling_checkpoint_behind_the_same_address_is_refused_without_any_fault(server: PoolingServer) -> None:
    """Such as by a load balancer: no connection is lost, so that nothing is probed again."""
    questions = _questions([9, 5])
    with _engine(server) as engine:
        _ask(engine, questions)
        _sibling(server.model, 0.03)
        with pytest.raises(TrainingFailed, match=r"differ by 0\.0\d+ of their norm .* \(limit in float32 0\.01\)"):
            _ask(engine, questions)
        assert engine.figures()["retries"] == 0


def _in_bfloat16(states: list[Tensor]) -> list[Tensor]:
    return [each.bfloat16().float() for each in states]


def test_a_server_that_computes_in_bfloat16_may_round_as_bfloat16_does_whatever_is_on_the_wire(
    server: PoolingServer,
) -> None:
    questions = _questions([9, 5])
    server.change = _in_bfloat16
    with _engine(server) as engine:
        _ask(engine, questions)
        server.change = lambda states: _in_bfloat16([each * 1.06 for each in states])
        _ask(engine, questions)
        server.change = lambda states: _in_bfloat16([each * 1.2 for each in states])
        with pytest.raises(TrainingFailed, match=r"limit in bfloat16 0\.13"):
            _ask(engine, questions)
    server.change = list
    with _engine(server) as engine:
        _ask(engine, questions)
        server.change = lambda states: [each * 1.06 for each in states]
        with pytest.raises(TrainingFailed, match=r"limit in float32 0\.01"):
            _ask(engine, questions)


@pytest.mark.parametrize("other", ["other", "wide"])
def test_another_model_behind_the_same_name_is_refused(server: PoolingServer, folder: Path, other: str) -> None:
    questions = _questions([9, 5])
    with _engine(server) as engine:
        _ask(engine, questions)
        server.serve(folder / other)
        said = (
            r"differ by 1\.\d+ of their norm .* \(limit in float32 0\.01\)"
            if other == "other"
            else "hidden size of 48.* with 32"
        )
        with pytest.raises(TrainingFailed, match=f"{said}.*; fix: one model behind all addresses"):
            _ask(engine, questions)


def test_a_replica_with_another_model_is_refused(server: PoolingServer, folder: Path) -> None:
    with (
        PoolingServer(folder / "other") as second,
        _engine(server, second, request_tokens=10) as engine,
        pytest.raises(TrainingFailed, match=f"{server.url}|{second.url}.*so this is another model"),
    ):
        _ask(engine, _questions([9] * 6))


def test_one_address_alone_can_be_asked(server: PoolingServer, folder: Path) -> None:
    questions = _questions([9, 5])
    with PoolingServer(folder / "other") as second, _engine(server, second) as engine:
        for each, name in ((server, "model"), (second, "other")):
            given = engine.ask_at(each.url, questions)["hidden"]
            torch.testing.assert_close(given, _expected(folder / name, questions))

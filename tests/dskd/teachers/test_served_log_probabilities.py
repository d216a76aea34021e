"""Requests for log-probabilities and what may come back, from an imitated server: nothing is learnt from a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dskd.errors import InputError, TrainingFailed
from dskd.teachers.engines.served_engine import together
from dskd.teachers.engines.served_log_probabilities import ServedLogProbabilities
from dskd.teachers.options import ServedOptions
from dskd.teachers.questions import Question
from helpers.openai_server import Answers, OpenAIServer, cut, status, text


def completions(shift: float = 0.0, said: Any = ..., **changes: Any) -> Any:
    """An imitated answer: every token has the log-probability -1 − `shift`, or what is `said`, and 0 to 2 are a little less probable."""

    def answer(handler: Answers) -> None:
        choices = []
        for index, ids in enumerate(handler.body["prompt"]):
            best = {str(k): {"logprob": -2.0 - shift - k} for k in range(handler.body["prompt_logprobs"])}
            own = {"logprob": -1.5 - shift if said is ... else said}
            entries = [None, *(best | {str(token): own} for token in ids[1:])]
            choices.append({"index": index, "text": "", "prompt_logprobs": entries, **changes})
        handler.send(json.dumps({"model": "teacher", "choices": choices}))

    return answer


@pytest.fixture
def imitated() -> Iterator[OpenAIServer]:
    with OpenAIServer(lambda _: "") as server:
        server.broken = completions()
        yield server


def imitated_options(server: OpenAIServer, **more: Any) -> ServedOptions:
    given: dict[str, Any] = {"kind": "text_log_probabilities", "model": "teacher", "patience": 5.0, **more}
    return ServedOptions(addresses=(server.url.removesuffix("/v1"),), **given)


ASKED = [Question([5, 6, 7, 8], np.array([1, 2])), Question([9, 5], np.array([0]))]


def test_a_request_has_token_ids_and_asks_for_as_little_as_the_server_takes(imitated: OpenAIServer) -> None:
    with ServedLogProbabilities(imitated_options(imitated)) as engine:
        engine.ask(ASKED).result()
    body = imitated.requests[-1]
    assert body["prompt"][1:] == [[5, 6, 7, 8], [9, 5]]
    assert body["prompt"][0] == [6, 7, 8]  # the canary, of what is learnt from
    assert (body["prompt_logprobs"], body["max_tokens"]) == (0, 1)
    with ServedLogProbabilities(imitated_options(imitated, kind="top_k", k=3)) as engine:
        found = engine.ask(ASKED).result()
    assert imitated.requests[-1]["prompt_logprobs"] == 3
    assert found["ids"].tolist() == [[7, 0, 1], [8, 0, 1], [5, 0, 1]]


def test_a_request_has_no_more_texts_than_a_server_takes(imitated: OpenAIServer) -> None:
    with ServedLogProbabilities(imitated_options(imitated, request_tokens=10**6)) as engine:
        found = engine.ask(ASKED[1:] * 1500).result()
    assert [len(body["prompt"]) for body in imitated.requests[1:]] in ([1001, 501], [501, 1001])
    assert found["log_probabilities"].tolist() == [-1.5] * 1500


def test_another_model_behind_the_address_ends_it_and_nothing_is_learnt_from_its_answer(imitated: OpenAIServer) -> None:
    with ServedLogProbabilities(imitated_options(imitated)) as engine:
        engine.ask(ASKED).result()
        imitated.broken = completions(shift=0.1)  # as rounding may do
        engine.ask(ASKED).result()
        imitated.broken = completions(shift=0.4)
        with pytest.raises(
            TrainingFailed, match=r"0\.40 apart on average from those that were answered before .*; fix: "
        ) as error:
            engine.ask(ASKED).result()
    assert "\n" not in str(error.value)


def test_half_an_answer_and_a_busy_server_are_asked_again(imitated: OpenAIServer) -> None:
    with ServedLogProbabilities(imitated_options(imitated)) as engine:
        imitated.faults = [cut, status(503), text('{"choices": [')]
        found = engine.ask(ASKED).result()
        assert engine.figures()["retries"] == 3
    assert found["log_probabilities"].tolist() == [-1.5] * 3


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (completions(prompt_logprobs=[None]), "has 1 entries for a prompt of 3 tokens"),
        (completions(index=0), "does not number its choices from 0 to 2"),
        (completions(index=[0]), "does not number its choices from 0 to 2"),
        (completions(index=10**400), "does not number its choices from 0 to 2"),
        (completions(said=-(10**400)), "has a whole number beyond all log-probabilities"),
        (completions(said=[-1.0]), "has no number for id 7 at token 1"),
        (completions(shift=float("nan")), "has nan for id 7 at token 1"),
        (completions(shift=-9.0), "has 7.5 for id 7 at token 1, which is no log-probability"),
        (text("{}"), "has no list of choices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_answer_ends_it_in_one_line_with_the_address(imitated: OpenAIServer, answer: Any, said: str) -> None:
    with ServedLogProbabilities(imitated_options(imitated)) as engine:
        imitated.broken = answer
        with pytest.raises(TrainingFailed, match=said) as error:
            engine.ask(ASKED).result()
    line = str(error.value)
    assert line.startswith(
        f"http://127.0.0.1:{imitated.url.rpartition(':')[2].removesuffix('/v1')}: answers /v1/completions"
    )
    assert "; fix: look at the server's log; nothing was learnt from this answer" in line
    assert "\n" not in line


def test_more_tokens_than_were_asked_for_are_refused(imitated: OpenAIServer) -> None:
    with ServedLogProbabilities(imitated_options(imitated, kind="top_k", k=3)) as engine:
        imitated.broken = lambda handler: (
            handler.body.update(prompt_logprobs=100),
            completions()(handler),
        )
        with pytest.raises(TrainingFailed, match=r"has 100 tokens at token 2, where 3 and the label were asked for"):
            engine.ask(ASKED).result()


def test_json_that_no_parser_follows_is_half_an_answer(imitated: OpenAIServer) -> None:
    with ServedLogProbabilities(imitated_options(imitated)) as engine:
        imitated.faults = [text("[" * 100_000)]
        engine.ask(ASKED).result()
        assert engine.figures()["retries"] == 1


def test_nothing_asked_is_an_error_and_not_a_wait_without_end() -> None:
    with pytest.raises(ValueError, match="nothing was asked"):
        together([], list)


def test_a_server_that_says_nothing_of_its_prompts_is_refused_before_anything_is_asked(imitated: OpenAIServer) -> None:
    imitated.broken = completions(prompt_logprobs=None)
    with pytest.raises(
        InputError, match=r"says nothing of the tokens of a prompt .*; fix: serve the teacher with vLLM"
    ):
        ServedLogProbabilities(imitated_options(imitated))

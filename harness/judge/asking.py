"""Asks what has not been asked yet, several requests at a time, and stores every reply as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from dskd.errors import InputError
from harness.endpoints.client import EndpointClient
from harness.endpoints.endpoint import Endpoint
from harness.endpoints.parallel import ask_each
from harness.judge.folder import JudgeFolder
from harness.judge.pairs import Question
from harness.judge.prompt import messages, request_hash
from harness.judge.verdict import read_verdict, winner_of


def missing(folder: JudgeFolder, wanted: Sequence[Question], parameters: dict[str, Any]) -> list[Question]:
    """Return the questions that the folder has no judgement of. InputError where it has one that was asked in another way."""
    left = []
    for question in wanted:
        judgement = folder.judgements.get(question.key)
        if judgement is None:
            left.append(question)
        elif judgement["request"] != request_hash(messages(question), _parameters(parameters, question)):
            raise InputError(
                f"{folder.path}: its judgement of {question.pair.id!r} is of another request; fix: name another --output-dir"
            )
    return left


def ask(
    folder: JudgeFolder,
    questions: Sequence[Question],
    endpoint: Endpoint,
    model: str,
    parameters: dict[str, Any],
    *,
    parallel: int = 8,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Ask the judge, `parallel` requests at a time, and add each judgement to the folder.

    Args:
        parameters: Of the request's body; `seed` is one more where a question is asked again.
        advance: Called with 1 after each.

    InputError with the first request that gets no reply; those that were answered are stored, those under way are dropped.
    """
    asyncio.run(_ask(folder, questions, endpoint, model, parameters, min(parallel, len(questions)), advance))


async def _ask(
    folder: JudgeFolder,
    questions: Sequence[Question],
    endpoint: Endpoint,
    model: str,
    parameters: dict[str, Any],
    parallel: int,
    advance: Callable[[int], None],
) -> None:
    client = EndpointClient(endpoint, model)

    async def one(question: Question) -> None:
        folder.add(await _judgement(client, question, _parameters(parameters, question)))
        advance(1)

    try:
        await ask_each(questions, one, parallel)
    finally:
        await client.close()


async def _judgement(client: EndpointClient, question: Question, parameters: dict[str, Any]) -> dict[str, Any]:
    asked, pair = messages(question), question.pair
    began, start = time.time(), time.perf_counter()
    reply = await client.chat(asked, parameters, f"prompt {pair.id!r}")
    said = reply.choices[0]
    verdict = read_verdict(said.text, said.finish_reason)
    return {
        "id": pair.id,
        "index": pair.index,
        "order": question.order,
        "repeat": question.repeat,
        "verdict": verdict,
        "winner": winner_of(verdict, question.order),
        "request": request_hash(asked, parameters),
        "messages": asked,
        "parameters": parameters,
        "reply": said.text,
        "reasoning": said.reasoning,
        "finish_reason": said.finish_reason,
        "model": reply.model,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "began": round(began, 3),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _parameters(parameters: dict[str, Any], question: Question) -> dict[str, Any]:
    """The parameters of a question: asked again at the same seed, a server would only repeat itself."""
    seed = parameters.get("seed")
    return parameters | ({"seed": seed + question.repeat} if isinstance(seed, int) else {})

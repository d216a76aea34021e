"""Asks a teacher behind an endpoint for what has not been answered yet, and makes a training set of all replies."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.reasoning import markers_of
from harness.costs.token_price import TokenPrice
from harness.endpoints.client import EndpointClient, PromptRefused
from harness.endpoints.endpoint import Endpoint
from harness.endpoints.log import ReplyLog
from harness.endpoints.parallel import ask_each
from harness.endpoints.replies import Reply
from harness.responses.prompts import Asked
from harness.responses.reading import Outcome, read_response
from harness.responses.report import cost_of, counts_of, named_of
from harness.responses.requests import Asking, Request, askable, requests_of

Advance = Callable[[int, int], None]
_Replies = dict[tuple[int, int], dict[str, Any]]


def respond(
    prompts: Sequence[Asked],
    asking: Asking,
    endpoints: Sequence[Endpoint],
    log: ReplyLog,
    *,
    tokenizer: Any | None = None,
    parallel: int = 8,
    price: TokenPrice | None = None,
    advance: Advance = lambda *_: None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Ask for the responses that the log does not hold, and return all as rows of a training set, with a report.

    Args:
        prompts: What is asked.
        asking: How.
        endpoints: Where; several are replicas, each of which is asked for its share of the prompts.
        log: Where each reply goes as it comes. A process that is killed loses no reply, and the next asks nothing that is in it.
        tokenizer: As of `requests_of`.
        parallel: How many requests are open at the same time.
        price: For the report.
        advance: Called with (requests that are answered, all requests), first with those that were before.

    Returns:
        (rows in the order of prompts and samples, the report: see docs/teacher-responses.md).

    Raises:
        InputError: With the first request that gets no reply; where the log holds replies to other requests; and where no response
            can be learned from.
    """
    asked, not_asked = askable(prompts, tokenizer)
    requests = list(requests_of(asked, asking, tokenizer))
    replies = _stored(log, requests)
    refused: dict[int, PromptRefused] = {}
    missing = [request for request in requests if request.key not in replies]
    advance(len(replies), len(requests))
    if missing:
        work = _Work(log, replies, refused, len(requests), advance)
        asyncio.run(_ask(missing, asking, endpoints, min(parallel, len(missing)), work))
    rows, outcomes = _read(asked, requests, replies, tokenizer)
    reasons = Counter({"too_long": 0, "filtered": 0})
    for request in requests:
        if request.key not in replies:
            reasons[refused[request.number].reason] += request.samples
    used = [replies[request.key] for request in requests if request.key in replies]
    counts, cost = counts_of(outcomes, reasons), cost_of(used, price)
    report = {
        "prompts": len(asked),
        "samples": asking.samples,
        **({"not_asked": not_asked} if not_asked else {}),
        **counts,
        "generated_tokens": cost["completion_tokens"],
        **named_of(used),
        "usage": cost,
    }
    if not rows:
        raise InputError(_nothing(asking, endpoints, counts, refused))
    return rows, report


def _nothing(
    asking: Asking, endpoints: Sequence[Endpoint], counts: Mapping[str, int], refused: Mapping[int, PromptRefused]
) -> str:
    if refused and not any(counts[name] for name in counts if name not in {"refused", "prompt_too_long"}):
        return str(refused[min(refused)])
    found = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    return (
        f"{endpoints[0].words.who} at {endpoints[0].shown}: {asking.model!r} gave no response that can be learned from ({found or 'none'}); "
        f"fix: raise max_new_tokens (now {asking.max_new_tokens}), or look at the replies"
    )


def _stored(log: ReplyLog, requests: Sequence[Request]) -> _Replies:
    """The replies to these requests that are there."""
    wanted = {request.key: request for request in requests}
    found: _Replies = {}
    for number, row in log.rows():
        try:
            key = row["prompt"], row["sample"]
            _ = row["choices"], row["retries"], row["began"], row["seconds"], row["model"]
            same = key not in wanted or row["request"] == wanted[key].hash
        except KeyError as error:
            raise InputError(f"{log.path}:{number}: has no {error}; fix: remove the line") from None
        if not same:
            raise InputError(
                f"{log.path}:{number}: its reply to prompt {key[0] + 1} is to another request, of other data or settings; "
                "fix: write to another folder"
            )
        if key in wanted:
            found[key] = row
    return found


class _Work:
    """What is done with a reply."""

    def __init__(
        self, log: ReplyLog, replies: _Replies, refused: dict[int, PromptRefused], total: int, advance: Advance
    ) -> None:
        self.log, self.replies, self.refused, self.total, self._advance = log, replies, refused, total, advance
        self._done = len(replies)

    def add(self, request: Request, reply: Reply, began: float, seconds: float) -> None:
        """Store it; it is on the disk when this returns."""
        row = {
            "prompt": request.number,
            "sample": request.sample,
            "request": request.hash,
            "choices": [asdict(choice) for choice in reply.choices],
            "model": reply.model,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "retries": reply.retries,
            "began": round(began, 3),
            "seconds": round(seconds, 3),
        }
        self.log.add(row)
        self.replies[request.key] = row
        self.advance()

    def advance(self) -> None:
        """Count a request."""
        self._done += 1
        self._advance(self._done, self.total)


async def _ask(
    requests: Sequence[Request], asking: Asking, endpoints: Sequence[Endpoint], parallel: int, work: _Work
) -> None:
    clients = [EndpointClient(endpoint, asking.model) for endpoint in endpoints]

    async def one(request: Request) -> None:
        if request.number in work.refused:  # as another sample of the same prompt
            work.advance()
            return
        # By the prompt: a replica has the beginning of all its samples at hand.
        client = clients[request.number % len(clients)]
        call = client.chat if asking.api == "chat" else client.complete
        began, start = time.time(), time.perf_counter()
        try:
            reply = await call(request.content, request.parameters, f"prompt {request.number + 1}")
        except PromptRefused as error:
            work.refused[request.number] = error
            work.advance()
            return
        _require_all(request, reply, endpoints[request.number % len(clients)])
        work.add(request, reply, began, time.perf_counter() - start)

    try:
        await ask_each(requests, one, parallel)
    finally:
        for client in clients:
            await client.close()


def _require_all(request: Request, reply: Reply, endpoint: Endpoint) -> None:
    if len(reply.choices) != request.samples:
        raise InputError(
            f"{endpoint.words.who} at {endpoint.shown}: gives {len(reply.choices)} of {request.samples} responses to a request with n; "
            "fix: ask for each in a request of its own"
        )


def _read(
    prompts: Sequence[Asked], requests: Sequence[Request], replies: Mapping[tuple[int, int], Any], tokenizer: Any | None
) -> tuple[list[dict[str, Any]], list[Outcome]]:
    """(the rows that are kept, what becomes of every response)."""
    markers = markers_of(tokenizer) if tokenizer is not None else None
    rows, outcomes = [], []
    for request in requests:
        for choice in replies[request.key]["choices"] if request.key in replies else ():
            outcome, row = read_response(prompts[request.number], choice, markers, opened=request.opened)
            outcomes.append(outcome)
            if row is not None:
                rows.append(row)
    return rows, outcomes

"""What the responses of an endpoint come to: how many are kept and how many are left out for which reason, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from harness.costs.token_price import TokenPrice
from harness.endpoints.usage import usage_of
from harness.responses.reading import Outcome

_MILLION = 1_000_000


def counts_of(outcomes: Sequence[Outcome], refused: Mapping[str, int]) -> dict[str, int]:
    """Responses by what becomes of them; `refused`: those to prompts that the server does not answer, by reason."""
    counts = Counter(outcomes)
    found = {name: counts[name] for name in get_args(Outcome)}
    found["refused"] += refused.get("filtered", 0)
    return {**found, "prompt_too_long": refused.get("too_long", 0)}


def cost_of(replies: Sequence[Mapping[str, Any]], price: TokenPrice | None) -> dict[str, Any]:
    """Requests, retries, tokens and seconds of stored replies, and what they cost at a price; None where tokens are not known.

    Without a price nothing is said of money.
    """
    usage = {**usage_of(replies), "retries": sum(reply["retries"] for reply in replies)}
    usage = {name: round(value, 3) if isinstance(value, float) else value for name, value in usage.items()}
    if price is None:
        return usage
    tokens = usage["prompt_tokens"], usage["completion_tokens"]
    known = None not in tokens
    cost = (tokens[0] * price.prompt + tokens[1] * price.completion) / _MILLION if known else None
    return {**usage, "price_per_million": price.model_dump(), "cost": cost}


def named_of(replies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The finish reasons of all responses and the names that the server gave its model, with their numbers."""
    reasons = Counter(str(choice["finish_reason"]) for reply in replies for choice in reply["choices"])
    models = Counter(str(reply["model"]) for reply in replies)
    return {"finish_reasons": dict(reasons.most_common()), "models": dict(models.most_common())}

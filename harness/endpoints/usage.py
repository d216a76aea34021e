"""What requests cost: tokens as the server counted them, and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def usage_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return {"requests", "prompt_tokens", "completion_tokens", "wall_seconds", "request_seconds"} of stored replies.

    A number of tokens is None where the server did not say it of every request.

    Args:
        rows: Each with both numbers of tokens, `began` in seconds since 1970, and `seconds`.
    """
    return {
        "requests": len(rows),
        "prompt_tokens": _sum(rows, "prompt_tokens"),
        "completion_tokens": _sum(rows, "completion_tokens"),
        "wall_seconds": _open_time([(each["began"], each["began"] + each["seconds"]) for each in rows]),
        "request_seconds": sum(each["seconds"] for each in rows),
    }


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> int | None:
    values = [each[name] for each in rows]
    return None if None in values else sum(values)


def _open_time(spans: Sequence[tuple[float, float]]) -> float:
    """The time in which at least one request was open, so that pauses between commands do not count."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total

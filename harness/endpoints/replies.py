"""What a server answers: the choices of a chat completion or of a completion, and what they cost. The `openai` package checks none of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Api = Literal["chat", "completions"]


@dataclass(frozen=True)
class Choice:
    """One response of a reply.

    Attributes:
        text: Without the reasoning where the server takes that out of the text itself.
        reasoning: What it took out.
        finish_reason: As the server says it.
        refusal: What a server says in place of a text that it does not give.
        tool_calls: As the server gives them: {"id", "type", "function": {"name", "arguments": JSON text}}.
    """

    text: str
    reasoning: str | None = None
    finish_reason: str | None = None
    refusal: str | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Reply:
    """A reply: its choices, the model as the server names it, tokens as it counts them, and how often the request was sent again."""

    choices: tuple[Choice, ...]
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    retries: int = field(default=0, compare=False)


def read_reply(completion: Any, api: Api, clean: Callable[[str], str], retries: int) -> Reply | None:
    """Return what a server answered, None where it is no completion of this API.

    Args:
        clean: Takes the API key out of a text.
        retries: How often the request was sent again.
    """
    given = getattr(completion, "choices", None)
    read = _chat_choice if api == "chat" else _text_choice
    choices = [read(each, clean) for each in given] if isinstance(given, list) else []
    if not choices or None in choices:
        return None
    usage = getattr(completion, "usage", None)
    return Reply(
        tuple(choice for choice in choices if choice is not None),
        _text(getattr(completion, "model", None)),
        _count(getattr(usage, "prompt_tokens", None)),
        _count(getattr(usage, "completion_tokens", None)),
        retries,
    )


def _chat_choice(choice: Any, clean: Callable[[str], str]) -> Choice | None:
    message = getattr(choice, "message", None)
    content = getattr(message, "content", None)
    if message is None or not isinstance(content, str | None):
        return None
    # vLLM has `reasoning`, its older versions and others `reasoning_content`.
    reasoning = _text(getattr(message, "reasoning", None)) or _text(getattr(message, "reasoning_content", None))
    refusal, calls = _text(getattr(message, "refusal", None)), getattr(message, "tool_calls", None)
    return Choice(
        clean(content or ""),
        clean(reasoning) if reasoning else None,
        _text(getattr(choice, "finish_reason", None)),
        clean(refusal) if refusal else None,
        tuple(_plain(call, clean) for call in calls) if isinstance(calls, list) else (),
    )


def _text_choice(choice: Any, clean: Callable[[str], str]) -> Choice | None:
    text = getattr(choice, "text", None)
    if not isinstance(text, str):
        return None
    return Choice(clean(text), finish_reason=_text(getattr(choice, "finish_reason", None)))


def _plain(call: Any, clean: Callable[[str], str]) -> dict[str, Any]:
    """A call of a tool as JSON values."""
    given = call.model_dump(exclude_none=True, warnings=False) if hasattr(call, "model_dump") else call
    return _cleaned(given, clean) if isinstance(given, dict) else {}


def _cleaned(value: Any, clean: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {name: _cleaned(each, clean) for name, each in value.items()}
    if isinstance(value, list):
        return [_cleaned(each, clean) for each in value]
    return clean(value) if isinstance(value, str) else value


def _text(value: Any) -> str | None:
    """A text; None where the server says none, or something else."""
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    """A number of tokens; None where the server says none, or something else."""
    return value if isinstance(value, int) else None

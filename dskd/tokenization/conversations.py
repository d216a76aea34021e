"""Conversations: messages of a system, a user, an assistant and tools, whatever form a file had them in (dskd/data/shapes.py)."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: `system`, `developer`, `user`, `assistant` or `tool`.
        content: The text; empty where there is none, as beside a call of a tool.
        reasoning: What the assistant thought before it answered; None where nothing is known of it, empty where it did not think.
        tool_calls: The calls of tools, each {"type": "function", "function": {"name", "arguments"}} and perhaps "id"; arguments
            are an object.
        tool_call_id: Of a tool's message: the call that it answers.
        name: Of the tool that a tool's message is from, or of who speaks.
        train: Whether an assistant's message is trained on; None leaves it to what is said for all.
    """

    role: str
    content: str
    reasoning: str | None = None
    tool_calls: tuple[dict[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    train: bool | None = None


@dataclass(frozen=True)
class Conversation:
    """Messages in their order, and the tools that the assistant is told of: JSON schemas as chat templates take them."""

    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()


def to_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """The messages as `apply_chat_template` takes them.

    Args:
        conversation: Any conversation.

    Returns:
        A dictionary a message, with `role`, `content`, and where there are any `tool_calls` (their arguments as objects),
        `tool_call_id` and `name`. Without the reasoning, which every template has under another name.
    """
    return [_as_dict(message) for message in conversation.messages]


def _as_dict(message: Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        made["tool_calls"] = deepcopy(list(message.tool_calls))  # templates may write into what they are given
    return made | {key: getattr(message, key) for key in ("tool_call_id", "name") if getattr(message, key) is not None}

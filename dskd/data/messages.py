"""Lists of messages in the forms that people have them, as a `Conversation`: OpenAI's, ShareGPT's, and blocks of LLaMA-Factory's.

A message has `role` and `content`, or `from` and `value`. Content is text, null, or a list of blocks. Calls of tools have their
arguments as an object or as JSON text; reasoning stands in a field of its own, in a block, or as `<think>…</think>` before the text.
What cannot be kept is refused with a reason, and nothing is dropped but what follows the last message that is trained on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NoReturn

from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation, Message

TrainOn = Literal["all", "last"]

_ROLES = {
    **dict.fromkeys(("system",), "system"),
    **dict.fromkeys(("developer",), "developer"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response"), "tool"),
}
_REASONING = ("reasoning_content", "reasoning", "thinking")
_WEIGHTS = ("train", "weight", "loss_weight")
_TEXT_BLOCKS = ("text", "input_text", "output_text")
_REASONING_BLOCKS = ("reasoning", "thinking")
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)


class Unusable(InputError):
    """A row that cannot be trained on, though others of its source can.

    Attributes:
        where: Its place.
        reason: What is wrong with it, in words that are the same for all such rows.
    """

    def __init__(self, where: str, reason: str, fix: str) -> None:
        super().__init__(f"{where}: {reason}; fix: {fix}")
        self.where, self.reason = where, reason


class Lacking(Unusable):
    """A row that lacks a text which all rows need: in a file of one's own a mistake to correct."""


def read_conversation(
    messages: Any,
    where: str,
    *,
    tools: Any = None,
    system: str | None = None,
    split_reasoning: bool = True,
    train_on: TrainOn = "all",
) -> Conversation:
    """A conversation from a list of messages.

    Args:
        messages: The list, in any of the forms above.
        where: The place of the row, for errors.
        tools: A list of JSON schemas, or that list as JSON text.
        system: A system message that stands beside the messages.
        split_reasoning: Whether `<think>…</think>` before an assistant's text becomes its `reasoning`.
        train_on: `last` trains on the last message of the assistant alone.

    Returns:
        The messages up to the last one that is trained on.

    Raises:
        Unusable: For a row that cannot be trained on, with the reason.
    """
    if not isinstance(messages, list) or not messages:
        _refuse(where, "the messages are no list, or an empty one")
    found = _joined(messages, where, split=split_reasoning)
    if system:
        found = _with_system(found, system, where)
    return Conversation(_trained(found, where, train_on), read_tools(tools, where))


def _refuse(where: str, reason: str, fix: str = "correct the row or leave it out") -> NoReturn:
    raise Unusable(where, reason, fix)


def _with_system(messages: list[Message], system: str, where: str) -> list[Message]:
    if messages[0].role not in ("system", "developer"):
        return [Message("system", system), *messages]
    if messages[0].content != system:
        _refuse(where, "has a system message among the messages and another beside them")
    return messages


def _joined(messages: Iterable[Any], where: str, *, split: bool) -> list[Message]:
    """The messages, those of ShareGPT's `function_call` joined with what the assistant said or called before them in the same turn."""
    found: list[Message] = []
    for given in messages:
        message = _message(given, where, split=split)
        before = found[-1] if found else None
        is_call = given.get("from", given.get("role")) == "function_call" and message.reasoning is None
        if is_call and before is not None and before.role == "assistant" and before.train == message.train:
            found[-1] = replace(before, tool_calls=before.tool_calls + message.tool_calls)
        else:
            found.append(message)
    return found


def _trained(messages: list[Message], where: str, train_on: TrainOn) -> tuple[Message, ...]:
    """The messages up to the last that is trained on: nothing of what follows can matter."""
    own = [k for k, message in enumerate(messages) if message.role == "assistant"]
    if not own:
        _refuse(where, "has no message of the assistant")
    if train_on == "last":
        for k in own[:-1]:
            messages[k] = replace(messages[k], train=False)
    trained = [k for k in own if messages[k].train is not False]
    if not trained:
        _refuse(where, "has no message that is to be trained on")
    for k in trained:
        if not (messages[k].content or messages[k].tool_calls or messages[k].reasoning):
            _refuse(where, "a message of the assistant that is to be trained on is empty")
    return tuple(messages[: trained[-1] + 1])


# --- one message ---


def _message(given: Any, where: str, *, split: bool) -> Message:
    if not isinstance(given, Mapping):
        _refuse(where, "a message is no object")
    named = next((given[key] for key in ("role", "from") if key in given), None)
    if not isinstance(named, str) or named not in _ROLES:
        _refuse(where, f"the role {named!r} of a message is not known", f"use one of {', '.join(_ROLES)}")
    role = _ROLES[named]
    if any(given.get(key) for key in MEDIA):
        _refuse(where, "a message holds images, sound or video", "leave the row out: models of text alone are trained")
    content = next((given[key] for key in ("content", "value") if key in given), None)
    text, thoughts, calls = _parts(content, where)
    if named == "function_call":
        thoughts, calls, text = _call_as_text(text, where)
    calls += [read_tool_call(call, where) for call in _calls_beside(given, where)]
    reasoning = _reasoning(given, thoughts, where)
    if reasoning is None and split and role == "assistant":
        reasoning, text = split_thought(text)
    if role != "assistant" and (calls or reasoning):
        _refuse(where, f"a message of the {role} has calls of tools or reasoning, which are the assistant's")
    return Message(
        role,
        text,
        reasoning,
        tuple(calls),
        tool_call_id=_text_or_none(given, "tool_call_id", where),
        name=_text_or_none(given, "name", where),
        train=_train(given, role, where),
    )


def is_of_assistant(given: Any) -> bool:
    """Whether a message, in any form, is the assistant's."""
    return isinstance(given, Mapping) and _ROLES.get(str(given.get("role", given.get("from")))) == "assistant"


def split_thought(text: str) -> tuple[str | None, str]:
    """(reasoning, text) of a text that begins with `<think>…</think>`, without the newlines between; (None, the text) of any other."""
    found = _THOUGHT.match(text)
    return (None, text) if found is None else (found.group(1).strip("\n"), text[found.end() :].lstrip("\n"))


def _text_or_none(given: Mapping[str, Any], key: str, where: str) -> str | None:
    value = given.get(key)
    if value is not None and not isinstance(value, str):
        _refuse(where, f"{key} of a message is no text")
    return value


def _parts(content: Any, where: str) -> tuple[str, list[str], list[dict[str, Any]]]:
    """(text, reasoning, calls of tools) of a content: a text, null, or a list of texts and blocks."""
    if content is None or isinstance(content, str):
        return content or "", [], []
    if not isinstance(content, list):
        _refuse(where, "the content of a message is neither text nor a list of blocks")
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in content:
        if isinstance(block, str):
            texts.append(block)
            continue
        kind = block.get("type") if isinstance(block, Mapping) else None
        value = next((block[key] for key in ("value", "text", kind) if key in block), None) if kind else None
        if kind == "tool_call":
            calls += [read_tool_call(call, where) for call in _as_list(_from_json(value, "a call of a tool", where))]
        elif kind in _TEXT_BLOCKS + _REASONING_BLOCKS and isinstance(value, str):
            (texts if kind in _TEXT_BLOCKS else thoughts).append(value)
        else:
            _refuse(where, f"a message has a block of type {kind!r}", "text, reasoning and tool_call can be used")
    return "".join(texts), thoughts, calls


def _reasoning(given: Mapping[str, Any], thoughts: Sequence[str], where: str) -> str | None:
    found = ["".join(thoughts)] if thoughts else []
    found += [value for key in _REASONING if (value := _text_or_none(given, key, where)) is not None]
    if len(set(filter(None, found))) > 1:
        _refuse(where, "a message has its reasoning twice, and not the same")
    return max(found, default=None)


def _train(given: Mapping[str, Any], role: str, where: str) -> bool | None:
    """Whether a message says that it is trained on, or not."""
    weights = [given[key] for key in _WEIGHTS if given.get(key) is not None]
    if not weights:
        return None
    if any(weight not in (0, 1) for weight in weights) or len(set(map(bool, weights))) > 1:
        _refuse(
            where, "the weight of a message is neither 0 nor 1", "give 0 to what is not trained on, and 1 to the rest"
        )
    if role == "assistant":
        return bool(weights[0])
    if weights[0]:
        _refuse(where, f"a message of the {role} has the weight 1", "give it 0: only the assistant's are trained on")
    return None


# --- tools ---


def _calls_beside(given: Mapping[str, Any], where: str) -> list[Any]:
    """The calls in a message's own fields: `tool_calls`, or `function_call` as it was before."""
    calls = given.get("tool_calls") or []
    if not isinstance(calls, list):
        _refuse(where, "tool_calls of a message is no list")
    return calls + ([given["function_call"]] if given.get("function_call") else [])


def _call_as_text(text: str, where: str) -> tuple[list[str], list[dict[str, Any]], str]:
    """(reasoning, calls, no text) of ShareGPT's `function_call`: JSON text, perhaps after a thought."""
    thought, rest = split_thought(text)
    calls = [read_tool_call(call, where) for call in _as_list(_from_json(rest, "a call of a tool", where))]
    return ([] if thought is None else [thought]), calls, ""


def read_tool_call(given: Any, where: str) -> dict[str, Any]:
    """A call of a tool as OpenAI's, with its arguments as an object. Unusable for one without name or with other arguments."""
    function = given.get("function", given) if isinstance(given, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        _refuse(where, "a call of a tool has no name")
    arguments = function.get("arguments")
    if arguments is None or arguments == "":
        arguments = {}
    arguments = _from_json(arguments, "the arguments of a call", where)
    if not isinstance(arguments, dict):
        _refuse(where, "the arguments of a call of a tool are no JSON object")
    call: dict[str, Any] = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"id": given["id"], **call} if isinstance(given.get("id"), str) else call


def read_tools(given: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Tools as chat templates take them: {"type": "function", "function": schema}. Unusable where they are not a list of such."""
    found = []
    for each in _as_list(_from_json(given, "the tools", where)) if given else ():
        tool = _from_json(each, "a tool", where)
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            tool = {"type": "function", "function": {key: tool[key] for key in tool if key != "type"}}
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            _refuse(where, "a tool has no name")
        found.append(tool)
    return tuple(found)


def _from_json(value: Any, what: str, where: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        _refuse(where, f"{what} is no JSON")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]

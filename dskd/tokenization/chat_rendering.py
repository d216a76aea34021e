"""A tokenizer's chat template as a renderer: messages to text, refused where they are not all in it, and where a turn ends."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation, Message, to_messages
from dskd.tokenization.reasoning import ReasoningMarkers, markers_of

# Templates that write the day on which they are rendered get this one: prompts would change overnight.
MOMENT = datetime(2024, 7, 26)
# What templates are tried out with. No template writes these sentences itself, nor changes them.
QUESTION = Message("user", "question")
SENTENCE = "So it is said in this turn."
THOUGHT = "First it is weighed in mind."


class NotRendered(Exception):
    """A turn that the template does not render as it is.

    Attributes:
        reason: `template_refuses`: the template does not take the messages; `template_changes`: it leaves out or changes what they say;
            `no_reasoning`: the generation prompt opens reasoning, and the answer has none.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Renderer:
    """Renders messages by a tokenizer's chat template.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        system: A system message that goes before every conversation that has none.
        arguments: What else the template is given.

    Attributes:
        markers: What opens and closes reasoning; `<think>` and `</think>` where nothing shows any.
        writes_reasoning: Whether something shows them.
        form: How the reasoning of a message is given to the template: as a `field`, within the `content`, within it without an opening
            marker (`closing`), or not at all.

    Raises:
        InputError: Where the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any, *, system: str | None, arguments: Mapping[str, Any]) -> None:
        if not tokenizer.chat_template:
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; fix: save one with it (chat_template), or use alpaca"
            )
        self.tokenizer = tokenizer
        self.system = system
        self.arguments = dict(arguments)
        known = markers_of(tokenizer)
        self.writes_reasoning = known is not None
        self.markers = known or ReasoningMarkers("<think>", "</think>")
        self.form = ""

    def with_system(self, messages: Sequence[Message]) -> list[Message]:
        has_one = bool(messages) and messages[0].role in {"system", "developer"}
        return [*messages] if self.system is None or has_one else [Message("system", self.system), *messages]

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        *,
        generate: bool,
        form: str | None = None,
    ) -> str:
        """The template's text. Reasoning is given in the form that the template takes; `form` is of the last message alone."""
        forms = [self.form] * len(messages)
        if messages and form is not None:
            forms[-1] = form
        given = [self._as_dict(message, own) for message, own in zip(messages, forms, strict=True)]
        return self._apply(given, tools, generate=generate)

    def _as_dict(self, message: Message, form: str) -> dict[str, Any]:
        (made,) = to_messages(Conversation((message,)))
        thought = (message.reasoning or "").strip() if message.role == "assistant" else ""
        if not thought:
            return made
        if form == "field":  # each family of models has a name of its own for it
            return made | dict.fromkeys(("reasoning_content", "reasoning", "thinking"), thought)
        if form in {"content", "closing"}:
            opening = f"{self.markers.opening}\n" if form == "content" else ""
            return made | {"content": f"{opening}{thought}\n{self.markers.closing}\n\n{message.content}"}
        return made

    def _apply(self, messages: list[dict[str, Any]], tools: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        import jinja2

        settings = {
            "date_string": MOMENT.strftime("%d %b %Y"),
            "strftime_now": MOMENT.strftime,
            **self.arguments,
            "tokenize": False,
            "add_generation_prompt": generate,
            "tools": [dict(tool) for tool in tools] or None,
        }
        try:
            return self.tokenizer.apply_chat_template(messages, **settings)
        # What a template raises by itself, and what its own mistakes raise.
        except (jinja2.TemplateError, TypeError, KeyError, AttributeError, ValueError, IndexError) as error:
            texts = _with_arguments_as_text(messages)
            if texts != messages:  # some templates want the arguments of a call as JSON text
                return self._apply(texts, tools, generate=generate)
            line = " ".join(str(error).split()) or type(error).__name__
            raise NotRendered("template_refuses", f"its chat template does not take these messages ({line})") from error

    def require_all(self, given: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
        """NotRendered where the template leaves out what a message says, as some do with a system message."""
        for message in messages:
            text = message.content.strip()
            if message.role != "assistant" and text and text not in given and json.dumps(text)[1:-1] not in given:
                if message.role == "tool" and json.dumps(text, ensure_ascii=False)[1:-1] in given:
                    continue
                raise NotRendered(
                    "template_changes", f"its chat template leaves out or changes the {message.role} message"
                )
            for call in message.tool_calls:
                if str(call.get("function", {}).get("name", "")) not in given:
                    raise NotRendered("template_changes", "its chat template leaves out the call of a tool")
        for tool in tools:
            function = tool.get("function", tool)
            if str(function.get("name", "")) not in given:
                raise NotRendered("template_changes", "its chat template leaves out the tools")

    @cached_property
    def special_tokens(self) -> list[str]:
        """The spellings of special and added tokens, longest first."""
        tokens = {*self.tokenizer.added_tokens_encoder, *self.tokenizer.all_special_tokens}
        markers = {self.markers.opening, self.markers.closing}
        return sorted((t for t in tokens if t.strip() and t not in markers), key=len, reverse=True)

    @cached_property
    def _first_special(self) -> re.Pattern[str]:
        return re.compile("|".join(map(re.escape, self.special_tokens)) or r"(?!)")

    def cut_end(self, rest: str, after: str) -> tuple[str, int] | None:
        """What stands before the token that ends the turn, and its id. A turn with calls of tools may end with another token."""
        if rest.endswith(after):
            space = after[: len(after) - len(after.lstrip())]
            return rest[: len(rest) - len(after)] + space, self.end_in(after)
        trimmed = rest.rstrip()
        found = next((token for token in self.special_tokens if trimmed.endswith(token)), None)
        if found is None:
            return None
        return trimmed[: -len(found)], int(self.tokenizer.convert_tokens_to_ids(found))

    def end_in(self, after: str) -> int:
        """The id of the special token that follows an answer."""
        found = self._first_special.match(after.lstrip())
        if found is None:
            raise NotRendered(
                "template_refuses",
                f"its chat template ends an answer with {after!r}, which begins with no special token, so a model could not "
                "learn to stop; fix: use alpaca, or a chat template that ends a turn",
            )
        return int(self.tokenizer.convert_tokens_to_ids(found[0]))


def _with_arguments_as_text(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    changed = []
    for message in messages:
        calls = [
            call
            | {
                "function": call["function"]
                | {"arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}
            }
            if isinstance(call.get("function", {}).get("arguments"), Mapping)
            else call
            for call in message.get("tool_calls", ())
        ]
        changed.append(message | ({"tool_calls": calls} if calls else {}))
    return changed

"""What a chat template makes of a conversation: what the model is given, what the assistant writes, and where its turn ends.

A turn of the assistant is `prompt + written + end`:

- `prompt` is the template's own rendering of the messages before, with its generation prompt. What the template puts between that and
  every answer, such as an empty block of reasoning or the name of a channel, belongs to the prompt, in training and in generation.
- `written` is what the model has to write: the answer, calls of tools, and the reasoning where it is trained on.
- `end` is the special token that ends the turn.

None of it is searched for in strings that a user wrote. The template is rendered with the turn and without it, and once with a known
sentence in the place of the answer; the three must agree to the character, or the turn is refused with the reason.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation, Message, to_messages
from dskd.tokenization.reasoning import ReasoningMarkers, markers_of, opens

# Templates that write the day on which they are rendered get this one: prompts would change overnight.
MOMENT = datetime(2024, 7, 26)
# No template writes this sentence itself, nor changes it.
_SENTENCE = "So it is said in this turn."
_THOUGHT = "First it is weighed in mind."
_QUESTION = Message("user", "question")
_CHANNEL = "<|channel"
# What templates call the argument that turns reasoning on.
_REASONING_ARGUMENTS = ("enable_thinking", "thinking", "open_thinking")


class NotRendered(Exception):
    """A turn that the template does not render as it is.

    Attributes:
        reason: One of REASONS.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


# Why a turn is not used, in the names of a preparation's counts.
REASONS = {
    "template_refuses": "the chat template does not take these messages",
    "template_changes": "the chat template leaves out or changes what the messages say",
    "no_reasoning": "the generation prompt opens a block of reasoning, and the answer has none",
}


@dataclass(frozen=True)
class Piece:
    """A part of what the assistant writes that both models write alike. start, end: characters of `Turn.written`."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Turn:
    """One turn of the assistant as a model sees it.

    Attributes:
        prompt: The text before what the assistant writes.
        written: What the assistant writes, without the end of its turn.
        end: The id of the token that ends the turn.
        pieces: Where the reasoning and the answer stand in `written`.
        trained_from: The first character of `written` that is trained on; more than 0 where the reasoning is context alone.
    """

    prompt: str
    written: str
    end: int
    pieces: tuple[Piece, ...]
    trained_from: int = 0


@dataclass(frozen=True)
class _Frame:
    """What a template writes around an answer, with its generation prompt as the reference.

    dropped: the end of the generation prompt that a finished turn does not have; added: what a finished turn has before the answer;
    after: what follows the answer.
    """

    dropped: str
    added: str
    after: str


class ChatTemplate:
    """A tokenizer's chat template with its settings.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        system: A system message that goes before every conversation that has none.
        arguments: What else the template is given, such as `enable_thinking`.
        reasoning: `cut`, `keep` or `train` (dskd.tokenization.prompt_templates.Template). None: `train` where the generation prompt
            opens a block of reasoning or an argument turns reasoning on, else `cut`.

    Raises:
        InputError: For a template that cannot be used: which ends an answer with no special token, or whose finished turns do not
            go with its generation prompt.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        system: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        reasoning: str | None = None,
    ) -> None:
        if not tokenizer.chat_template:
            raise InputError(
                f"{tokenizer.name_or_path}: the tokenizer has no chat template; fix: save one with it (chat_template), or use alpaca"
            )
        self.tokenizer = tokenizer
        self.system = system
        self.arguments = dict(arguments or {})
        known = markers_of(tokenizer)
        self._writes_reasoning = known is not None
        self.markers = known or ReasoningMarkers("<think>", "</think>")
        try:
            self._plain = self._frame(self._with_system([_QUESTION]), ())
            self.end = self._end_in(self._plain.after)
            self._require_fit(self._render(self._with_system([_QUESTION]), (), generate=True), self._plain)
            self.reasoning = reasoning or self._usual_reasoning()
            self._form = self._form_of_reasoning() if self.reasoning != "cut" else ""
            if self.reasoning == "cut":
                self.prompt(Conversation((_QUESTION,)))
        except NotRendered as error:
            fix = "" if "fix: " in str(error) else "; fix: leave out `system` and `arguments`, or use alpaca"
            raise InputError(f"{tokenizer.name_or_path}: {error}{fix}") from error

    # --- what others ask for ---

    def prompt(self, conversation: Conversation) -> str:
        """What the model is given to write the next turn of the assistant. NotRendered where the template does not take it."""
        messages = self._with_system(conversation.messages)
        given = self._render(messages, conversation.tools, generate=True)
        self._require_all(given, messages, conversation.tools)
        if self.reasoning != "cut":
            return given
        return self._plain_prompt(given, self._frame(messages, conversation.tools, given))

    def turn(self, conversation: Conversation) -> Turn:
        """The last message of a conversation, which is the assistant's. NotRendered where the template does not render it as it is."""
        *before, answer = self._with_system(conversation.messages)
        given = self._render(before, conversation.tools, generate=True)
        self._require_all(given, before, conversation.tools)
        if self.reasoning != "cut" and answer.reasoning and answer.reasoning.strip():
            return self._reasoned(given, before, answer, conversation.tools)
        return self._answered(given, before, answer, conversation.tools)

    def render(self, conversation: Conversation) -> str | None:
        """A conversation that ends with the assistant as the template itself writes it; None where reasoning is no part of that."""
        reasoned = self.reasoning != "cut" and bool((conversation.messages[-1].reasoning or "").strip())
        if reasoned and self._form == "composed":
            return None
        messages = self._with_system(conversation.messages)
        messages[-1] = messages[-1] if reasoned else replace(messages[-1], reasoning=None)
        return self._render(messages, conversation.tools, generate=False)

    @cached_property
    def framing(self) -> frozenset[str]:
        """Special tokens, as they are spelled, that no message may hold: they begin and end texts and turns."""
        named = [*self.tokenizer.special_tokens_map.values()]
        named = [token for value in named for token in (value if isinstance(value, list) else [value])]
        written = self._render([_QUESTION, Message("assistant", _SENTENCE)], (), generate=False)
        own = {token for token in self.special_tokens if token in written}
        markers = (self.markers.opening, self.markers.closing)
        roles = {self.tokenizer.eos_token, self.tokenizer.bos_token, self.tokenizer.pad_token, self.tokenizer.unk_token}
        ends = {str(token) for token in roles if token}
        return frozenset(own | ends | {token for token in map(str, named) if token in written}) - frozenset(markers)

    # --- rendering ---

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        has_one = bool(messages) and messages[0].role in {"system", "developer"}
        return [*messages] if self.system is None or has_one else [Message("system", self.system), *messages]

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        *,
        generate: bool,
        form: str | None = None,
    ) -> str:
        """The template's text. Reasoning is given in the form that the template takes; `form` is of the last message alone."""
        own = self.__dict__.get("_form", "")
        shown = [*messages]
        given: list[dict[str, Any]] = []
        for k, message in enumerate(shown):
            last = k == len(shown) - 1
            given.append(self._as_dict(message, form if last and form is not None else own))
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

    # --- the parts of a turn ---

    def _frame(self, before: Sequence[Message], tools: Sequence[Mapping[str, Any]], given: str | None = None) -> _Frame:
        """The frame of a plain answer to these messages. NotRendered where finished turns do not go with the generation prompt."""
        if given is None:
            given = self._render(before, tools, generate=True)
        whole = self._render([*before, Message("assistant", _SENTENCE)], tools, generate=False)
        if whole.count(_SENTENCE) != 1:
            raise NotRendered("template_changes", "its chat template changes a plain answer")
        head, _, after = whole.partition(_SENTENCE)
        common = os.path.commonprefix([given, head])  # noqa: RUF071 - characters are what is compared
        return _Frame(given[len(common) :], head[len(common) :], after)

    def _require_fit(self, given: str, frame: _Frame) -> None:
        """NotRendered where the generation prompt ends with what finished turns do not have, an open block of reasoning aside."""
        if frame.dropped.strip() not in {"", self.markers.opening} or (
            frame.dropped and not opens(given, self.markers)
        ):
            kept = given[: len(given) - len(frame.dropped)]
            raise NotRendered(
                "template_refuses",
                f"its generation prompt ends with {given[-40:]!r}, and a finished turn begins with {kept[-20:] + frame.added!r}: "
                "no prompt suits both; fix: use a chat template whose finished turns begin with its generation prompt",
            )

    def _plain_prompt(self, given: str, frame: _Frame) -> str:
        """The prompt of an answer without reasoning: as finished turns have it."""
        self._require_fit(given, frame)
        kept = given[: len(given) - len(frame.dropped)]
        added = (
            "" if frame.added.isspace() else frame.added
        )  # spaces merge with the answer's first token, so they are written
        if opens(kept + added, self.markers):
            raise NotRendered(
                "no_reasoning",
                f"its generation prompt opens reasoning ({given[-20:]!r}), which an answer without reasoning never closes; "
                "fix: set reasoning: train, or arguments of the template that turn it off (enable_thinking: false)",
            )
        return kept + added

    def _answered(
        self, given: str, before: Sequence[Message], answer: Message, tools: Sequence[Mapping[str, Any]]
    ) -> Turn:
        """A turn without reasoning. Where the model may reason, it has to write itself what the template puts in its place."""
        whole = self._render([*before, replace(answer, reasoning=None)], tools, generate=False)
        for known in (self._plain, None):
            frame = known or self._frame(before, tools, given)
            if not given.endswith(frame.dropped):
                continue
            prompt, space = given, frame.added
            if self.reasoning == "cut":
                prompt, space = self._plain_prompt(given, frame), frame.added if frame.added.isspace() else ""
            elif frame.dropped or opens(given + frame.added, self.markers):
                raise NotRendered("no_reasoning", "its generation prompt opens reasoning, and the answer has none")
            found = (
                self._written(whole[len(prompt) :], space, frame.after, answer) if whole.startswith(prompt) else None
            )
            if found is not None:
                written, end = found
                start = len(space) if self.reasoning == "keep" and written.startswith(space) else 0
                return Turn(prompt, written, end, self._pieces(written, replace(answer, reasoning=None)), start)
        raise NotRendered("template_changes", "its chat template writes the answer otherwise than the message has it")

    def _reasoned(
        self, given: str, before: Sequence[Message], answer: Message, tools: Sequence[Mapping[str, Any]]
    ) -> Turn:
        """A turn that begins with its reasoning."""
        thought = (answer.reasoning or "").strip()
        if self._form == "composed":
            plain = self._plain.after if not answer.tool_calls else ""
            if not plain:
                raise NotRendered("template_changes", "its chat template leaves reasoning out")
            rest = f"{self._composed(given, thought)}{answer.content}{plain}"
        else:
            whole = self._render([*before, answer], tools, generate=False, form=self._form)
            if not whole.startswith(given):
                raise NotRendered(
                    "template_changes", "its chat template renders reasoning otherwise than its generation prompt asks"
                )
            rest = whole[len(given) :]
        cut = self._cut_end(rest, self._plain.after)
        if cut is None:
            raise NotRendered("template_changes", "its chat template ends a turn with reasoning in no known way")
        written, end = cut
        pieces = self._pieces(written, answer)
        names = [piece.name for piece in pieces]
        if "reasoning" not in names or ("answer" not in names and answer.content.strip()):
            raise NotRendered("template_changes", "its chat template leaves out or changes the reasoning or the answer")
        start = 0
        if self.reasoning == "keep":
            start = next((p.start for p in pieces if p.name == "answer"), pieces[0].end)
        return Turn(given, written, end, pieces, start)

    def _usual_reasoning(self) -> str:
        """What becomes of reasoning where nothing is said of it: `train` for a model that is asked to reason."""
        asked = any(self.arguments.get(name) is True for name in _REASONING_ARGUMENTS)
        given = self._render(self._with_system([_QUESTION]), (), generate=True)
        return "train" if asked or opens(given, self.markers) else "cut"

    def _form_of_reasoning(self) -> str:
        """How the template takes reasoning: as a field, within the content, or not at all after a prompt that opens it."""
        given = self._render([_QUESTION], (), generate=True)
        opened = opens(given, self.markers)
        answer = Message("assistant", _SENTENCE, reasoning=_THOUGHT)
        for form in ("field", "content", "closing"):
            if (form == "closing" and not opened) or (form == "content" and _CHANNEL in self.markers.opening):
                continue  # a channel is the template's to open, not the content's
            whole = self._render([_QUESTION, answer], (), generate=False, form=form)
            if not whole.startswith(given):
                continue
            rest = whole[len(given) :]
            once = rest.count(_THOUGHT) == 1 and rest.count(_SENTENCE) == 1
            if once and not (opened and rest.lstrip().startswith(self.markers.opening)):
                return form
        # It leaves reasoning out of finished turns, and the model writes it all the same where the prompt does not close it.
        if opened or (self._writes_reasoning and not given.rstrip().endswith(self.markers.closing)):
            return "composed"
        raise NotRendered(
            "template_changes",
            f"its chat template has no place for reasoning after its generation prompt ({given[-30:]!r}); "
            "fix: set reasoning: cut, or arguments of the template that turn it on (enable_thinking: true)",
        )

    def _composed(self, given: str, thought: str) -> str:
        """Reasoning as a model writes it after this prompt, up to the answer."""
        markers = self.markers
        opening = "" if opens(given, markers) else markers.opening
        if markers.end:  # messages in channels
            return f"{opening}{thought}{markers.end}{markers.closing}"
        between = "" if _CHANNEL in markers.opening else "\n\n"
        return f"{opening}\n{thought}\n{markers.closing}{between}".removeprefix("" if opening else "\n")

    def _written(self, rest: str, space: str, after: str, answer: Message) -> tuple[str, int] | None:
        """(what the assistant wrote, the id of the end) in the text after the prompt; None where it is not the message as it is.

        space: what stands before an answer, after: what follows it.
        """
        cut = self._cut_end(rest, after)
        if cut is None:
            return None
        written, content = cut[0], answer.content
        if answer.tool_calls:
            names = [str(call.get("function", {}).get("name", "")) for call in answer.tool_calls]
            return cut if content.strip() in written and all(name in written for name in names) else None
        trailing = after[: len(after) - len(after.lstrip())]
        inner = written.removesuffix(trailing) if trailing else written
        as_it_is = {space + text for text in (content, content.strip(), content.lstrip(), content.rstrip())}
        return cut if content.strip() and inner in as_it_is else None

    def _cut_end(self, rest: str, after: str) -> tuple[str, int] | None:
        """What stands before the token that ends the turn, and its id. A turn with calls of tools may end with another token."""
        if rest.endswith(after):
            space = after[: len(after) - len(after.lstrip())]
            return rest[: len(rest) - len(after)] + space, self._end_in(after)
        trimmed = rest.rstrip()
        found = next((token for token in self.special_tokens if trimmed.endswith(token)), None)
        if found is None:
            return None
        return trimmed[: -len(found)], int(self.tokenizer.convert_tokens_to_ids(found))

    def _pieces(self, written: str, answer: Message) -> tuple[Piece, ...]:
        pieces = []
        thought, content = (answer.reasoning or "").strip(), answer.content.strip()
        place = written.find(thought) if thought else -1
        if place >= 0:
            pieces.append(Piece("reasoning", place, place + len(thought)))
        # The answer is the last part; its text may stand in the reasoning as well.
        first = written.rfind(content) if thought else written.find(content)
        if content and first >= place + len(thought) * (place >= 0):
            pieces.append(Piece("answer", first, first + len(content)))
        return tuple(pieces)

    def _require_all(self, given: str, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> None:
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

    def _end_in(self, after: str) -> int:
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

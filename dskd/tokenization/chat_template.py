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

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from dskd.errors import InputError
from dskd.tokenization.chat_reasoning import composed_reasoning, form_of_reasoning, usual_reasoning
from dskd.tokenization.chat_rendering import QUESTION, SENTENCE, NotRendered, Renderer
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.reasoning import opens


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
        self._renderer = Renderer(tokenizer, system=system, arguments=arguments or {})
        self.markers = self._renderer.markers
        try:
            asked = self._renderer.with_system([QUESTION])
            given = self._renderer.render(asked, (), generate=True)
            self._plain = self._frame(asked, (), given)
            self.end = self._renderer.end_in(self._plain.after)
            self._require_fit(given, self._plain)
            self.reasoning = reasoning or usual_reasoning(self._renderer, given)
            if self.reasoning == "cut":
                self.prompt(Conversation((QUESTION,)))
            else:
                self._renderer.form = form_of_reasoning(self._renderer)
        except NotRendered as error:
            fix = "" if "fix: " in str(error) else "; fix: leave out `system` and `arguments`, or use alpaca"
            raise InputError(f"{tokenizer.name_or_path}: {error}{fix}") from error

    def prompt(self, conversation: Conversation) -> str:
        """What the model is given to write the next turn of the assistant. NotRendered where the template does not take it."""
        messages = self._renderer.with_system(conversation.messages)
        given = self._renderer.render(messages, conversation.tools, generate=True)
        self._renderer.require_all(given, messages, conversation.tools)
        if self.reasoning != "cut":
            return given
        return self._plain_prompt(given, self._frame(messages, conversation.tools, given))

    def turn(self, conversation: Conversation) -> Turn:
        """The last message of a conversation, which is the assistant's. NotRendered where the template does not render it as it is."""
        *before, answer = self._renderer.with_system(conversation.messages)
        given = self._renderer.render(before, conversation.tools, generate=True)
        self._renderer.require_all(given, before, conversation.tools)
        if self.reasoning != "cut" and answer.reasoning and answer.reasoning.strip():
            return self._reasoned(given, before, answer, conversation.tools)
        return self._answered(given, before, answer, conversation.tools)

    def render(self, conversation: Conversation) -> str | None:
        """A conversation that ends with the assistant as the template itself writes it; None where reasoning is no part of that."""
        reasoned = self.reasoning != "cut" and bool((conversation.messages[-1].reasoning or "").strip())
        if reasoned and self._renderer.form == "composed":
            return None
        messages = self._renderer.with_system(conversation.messages)
        messages[-1] = messages[-1] if reasoned else replace(messages[-1], reasoning=None)
        return self._renderer.render(messages, conversation.tools, generate=False)

    @property
    def special_tokens(self) -> list[str]:
        """The spellings of special and added tokens, longest first."""
        return self._renderer.special_tokens

    @cached_property
    def framing(self) -> frozenset[str]:
        """Special tokens, as they are spelled, that no message may hold: they begin and end texts and turns."""
        named = [*self._renderer.tokenizer.special_tokens_map.values()]
        named = [token for value in named for token in (value if isinstance(value, list) else [value])]
        written = self._renderer.render([QUESTION, Message("assistant", SENTENCE)], (), generate=False)
        own = {token for token in self._renderer.special_tokens if token in written}
        markers = (self.markers.opening, self.markers.closing)
        roles = {
            self._renderer.tokenizer.eos_token,
            self._renderer.tokenizer.bos_token,
            self._renderer.tokenizer.pad_token,
            self._renderer.tokenizer.unk_token,
        }
        ends = {str(token) for token in roles if token}
        return frozenset(own | ends | {token for token in map(str, named) if token in written}) - frozenset(markers)

    def _frame(self, before: Sequence[Message], tools: Sequence[Mapping[str, Any]], given: str) -> _Frame:
        """The frame of a plain answer to these messages, after the generation prompt `given`. NotRendered where there is none."""
        whole = self._renderer.render([*before, Message("assistant", SENTENCE)], tools, generate=False)
        if whole.count(SENTENCE) != 1:
            raise NotRendered("template_changes", "its chat template changes a plain answer")
        head, _, after = whole.partition(SENTENCE)
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
        # Spaces merge with the answer's first token, so they are written.
        added = "" if frame.added.isspace() else frame.added
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
        whole = self._renderer.render([*before, replace(answer, reasoning=None)], tools, generate=False)
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
        if self._renderer.form == "composed":
            plain = self._plain.after if not answer.tool_calls else ""
            if not plain:
                raise NotRendered("template_changes", "its chat template leaves reasoning out")
            rest = f"{composed_reasoning(self.markers, given, thought)}{answer.content}{plain}"
        else:
            whole = self._renderer.render([*before, answer], tools, generate=False, form=self._renderer.form)
            if not whole.startswith(given):
                raise NotRendered(
                    "template_changes", "its chat template renders reasoning otherwise than its generation prompt asks"
                )
            rest = whole[len(given) :]
        cut = self._renderer.cut_end(rest, self._plain.after)
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

    def _written(self, rest: str, space: str, after: str, answer: Message) -> tuple[str, int] | None:
        """(what the assistant wrote, the id of the end) in the text after the prompt; None where it is not the message as it is.

        space: what stands before an answer, after: what follows it.
        """
        cut = self._renderer.cut_end(rest, after)
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

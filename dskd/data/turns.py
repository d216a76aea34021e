"""Conversations as rows: each turn of the assistant in the tokens of one model or two, and turns that continue each other in one row.

A template need not write the same of an earlier turn as it wrote when that was the last one: many leave out the reasoning of earlier
turns. So each turn is tokenized as it is when it is written, and shares a row with an earlier turn only where its prompt begins with
all the tokens of that one, for both models. What is trained is then what a model is given and writes, to the token.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dskd.data.encoding import Encoded, encode_prompt, encode_response, encode_whole, prepared_row
from dskd.data.rows import continues, joined
from dskd.data.shapes import Example, Item
from dskd.tokenization.chat_rendering import NotRendered
from dskd.tokenization.chat_template import ChatTemplate
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Instruction, chat_template, user_message, writes_special_tokens
from dskd.tokenization.vocabulary import Vocabulary


@dataclass(frozen=True)
class UnusableTurn:
    """A turn that cannot be trained on: a reason in the names of a preparation's counts, and what is wrong in words."""

    reason: str
    detail: str


def supervised_turns(conversation: Conversation) -> list[int]:
    """The numbers of the messages that are trained on: the assistant's, but those that say otherwise."""
    return [k for k, m in enumerate(conversation.messages) if m.role == "assistant" and m.train is not False]


def as_conversation(example: Example) -> Conversation:
    """An instruction and its response as a conversation of one turn."""
    assert isinstance(example.prompt, Instruction)
    return Conversation((user_message(example.prompt), Message("assistant", example.response)))


class TurnEncoder:
    """One model's reading of the turns of conversations.

    Args:
        tokenizer: The model's tokenizer, with the prompt template `chat`.
        vocabulary: Its vocabulary.
    """

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.template: ChatTemplate = chat_template(tokenizer)

    def encode(self, conversation: Conversation) -> Encoded | UnusableTurn:
        """The last message of a conversation, which is the assistant's, as it follows what is before it."""
        answer = conversation.messages[-1]
        if spelled := self._spelled(answer):
            return UnusableTurn("special_tokens", f"the answer spells {spelled}, which begins or ends a text or a turn")
        try:
            turn = self.template.turn(conversation)
        except NotRendered as error:
            return UnusableTurn(error.reason, str(error))
        prompt = encode_prompt(self.tokenizer, turn.prompt)
        encoded = encode_response(self.tokenizer, self.vocabulary, prompt, turn.prompt, turn.written)
        if encoded is None:
            return UnusableTurn("not_encodable", "no tokens stand for exactly the answer")
        response, spans = encoded
        skipped = 0 if prompt else 1  # without a prompt nothing predicts the first token
        if turn.trained_from:
            start = len(turn.written[: turn.trained_from].encode())
            skipped = next((k for k, end in enumerate(spans[:, 1].tolist()) if end > start), len(response))
        length = len(prompt) + skipped
        pieces = tuple(
            (p.name, turn.written[p.start : p.end], len(turn.written[: p.start].encode())) for p in turn.pieces
        )
        return Encoded([*prompt, *response, turn.end], length, spans[skipped:], written=turn.written, pieces=pieces)

    def encode_example(self, example: Example) -> Encoded | UnusableTurn:
        """An instruction and its response, as a conversation of one turn."""
        return self.encode(as_conversation(example))

    def _spelled(self, answer: Message) -> str | None:
        """A token that frames turns and stands in an answer."""
        calls = json.dumps(answer.tool_calls, ensure_ascii=False) if answer.tool_calls else ""
        text = f"{answer.content}\n{answer.reasoning or ''}\n{calls}"
        return next((token for token in sorted(self.template.framing) if token in text), None)


class InstructionEncoder:
    """One model's reading of instructions, in a template that is for one turn. Takes what `TurnEncoder` takes."""

    def __init__(self, tokenizer: Any, vocabulary: Vocabulary) -> None:
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary

    def encode(self, conversation: Conversation) -> Encoded | UnusableTurn:
        """Nothing: the template has no place for a conversation."""
        return UnusableTurn("template_refuses", "the template alpaca is for one instruction and its response")

    def encode_example(self, example: Example) -> Encoded | UnusableTurn:
        """An instruction and its response."""
        encoded = encode_whole(self.tokenizer, self.vocabulary, example)
        if encoded is None:
            return UnusableTurn("not_encodable", "no tokens stand for exactly the response")
        if encoded.special:
            return UnusableTurn("special_tokens", "the response spells a special token")
        text = example.response.strip()
        first = len(example.response[: example.response.find(text)].encode())
        return replace(encoded, written=example.response, pieces=(("answer", text, first),) if text else ())


SideEncoder = TurnEncoder | InstructionEncoder


def encoder_of(tokenizer: Any, vocabulary: Vocabulary) -> SideEncoder:
    """What reads examples for a model with a prompt template."""
    return (TurnEncoder if writes_special_tokens(tokenizer) else InstructionEncoder)(tokenizer, vocabulary)


class ConversationEncoder:
    """Rows of conversations, for a student or for both models of a pair.

    Args:
        sides: The student's reading, and the teacher's where there is one.
        same_vocabulary: Whether the two have one vocabulary.
        max_length: Tokens of the longest turn, with all that is before it.
    """

    def __init__(self, sides: Sequence[SideEncoder], *, same_vocabulary: bool, max_length: int) -> None:
        self.sides = sides
        self.same_vocabulary = same_vocabulary
        self.max_length = max_length

    def rows(self, item: Item) -> tuple[list[dict[str, Any]], list[UnusableTurn]]:
        """(rows, why turns are left out). A row has as many turns as continue each other."""
        if isinstance(item, Example):
            row = self._row([side.encode_example(item) for side in self.sides])
            return ([], [row]) if isinstance(row, UnusableTurn) else ([joined([row])], [])
        return self._rows(item)

    def _rows(self, conversation: Conversation) -> tuple[list[dict[str, Any]], list[UnusableTurn]]:
        left_out: list[UnusableTurn] = []
        turns: list[dict[str, Any]] = []
        chosen = supervised_turns(conversation)
        for last in chosen:
            until = Conversation(conversation.messages[: last + 1], conversation.tools)
            row = self._row([side.encode(until) for side in self.sides])
            (left_out if isinstance(row, UnusableTurn) else turns).append(row)  # type: ignore[arg-type]
        if not chosen:
            left_out.append(UnusableTurn("no_answer", "no message of the assistant is trained on"))
        return [joined(part) for part in self._parts(turns)], left_out

    def _row(self, encoded: Sequence[Encoded | UnusableTurn]) -> dict[str, Any] | UnusableTurn:
        usable = [side for side in encoded if isinstance(side, Encoded)]
        if len(usable) < len(encoded):
            return next(side for side in encoded if isinstance(side, UnusableTurn))
        if any(len(side.ids) <= side.prompt_length for side in usable):
            return UnusableTurn("not_encodable", "no tokens stand for exactly the answer")
        for name, side in zip(("student", "teacher"), usable, strict=False):
            if len(side.ids) > self.max_length:
                return UnusableTurn(f"too_long_{name}", f"{len(side.ids)} tokens of the {name}")
        return prepared_row(*usable, same_vocabulary=self.same_vocabulary)

    def _parts(self, turns: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        names = ("student", "teacher")[: len(self.sides)]
        part: list[dict[str, Any]] = []
        for turn in turns:
            if part and not all(continues(part[-1], turn, name) for name in names):
                yield part
                part = []
            part.append(turn)
        if part:
            yield part

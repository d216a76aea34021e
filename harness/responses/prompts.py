"""What a teacher is asked of an example, and the example that its answer becomes. The same for every way to ask."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from dskd.data.examples import as_row, iter_examples
from dskd.data.formats import Row
from dskd.data.messages import is_of_assistant
from dskd.data.options import Takes
from dskd.data.shapes import Example, Item
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Instruction

Asked = str | Instruction | Conversation

_LISTS = ("messages", "conversations", "conversation")
_ASKED = ("prompt", "instruction", "question")
_ANSWERS = ("output", "completion", "response", "answer")
_PLACE = "…"  # of an answer that is not there: an example has one


def asked_of(item: Item) -> Asked:
    """What a teacher is asked of an example: the prompt, or a conversation up to the last turn of the assistant."""
    if isinstance(item, Example):
        return item.prompt
    last = max(k for k, message in enumerate(item.messages) if message.role == "assistant")
    # Of what the teacher answers anew, its own answer alone is learned.
    before = (replace(m, train=False) if m.role == "assistant" else m for m in item.messages[:last])
    return Conversation(tuple(before), item.tools)


def answered_row(
    prompt: Asked, text: str, reasoning: str | None = None, tool_calls: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    """The row of a training set that a prompt and its answer make.

    Args:
        prompt: What was asked.
        text: The answer.
        reasoning: What stood before it; kept of conversations alone.
        tool_calls: The calls of tools in the answer to a conversation, as `Message` has them.
    """
    if isinstance(prompt, str):
        return {"prompt": prompt, "output": text}
    if isinstance(prompt, Instruction):
        return {**prompt._asdict(), "output": text}
    answer = Message("assistant", text, reasoning=reasoning, tool_calls=tool_calls)
    return as_row(Conversation((*prompt.messages, answer), prompt.tools))


def prompt_key(asked: Asked) -> str:
    """What is asked, as one text: the same of an example and of every answer to it."""
    return json.dumps(answered_row(asked, ""), sort_keys=True)


def rows_by_prompt(path: Path, takes: Takes) -> dict[str, list[Row]]:
    """The rows of a file of responses, by the key of their prompt; takes: what they were written as."""
    found: dict[str, list[Row]] = {}
    for item in iter_examples(path, takes):
        found.setdefault(prompt_key(asked_of(item)), []).append(as_row(item))
    return found


def with_place_for_answer(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """Rows with their places, those that have only prompts as if they had an answer, so that they are read as examples."""
    for where, row in rows:
        yield where, _with_place(row)


def _with_place(row: Row) -> Row:
    column = next((name for name in _LISTS if isinstance(row.get(name), list)), None)
    if column is not None:
        answered = not row[column] or is_of_assistant(row[column][-1])
        return row if answered else {**row, column: [*row[column], {"role": "assistant", "content": _PLACE}]}
    if any(row.get(name) for name in _ANSWERS) or not any(name in row for name in _ASKED):
        return row
    return {name: value for name, value in row.items() if name not in _ANSWERS} | {"output": _PLACE, "answer": _PLACE}

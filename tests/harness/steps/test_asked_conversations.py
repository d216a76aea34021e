"""What a teacher is asked of a conversation, and the example that its answer becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dskd.data.options import Takes
from dskd.data.shapes import read_row
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Template, is_rendered, prompt_text, set_template
from harness.responses.prompts import answered_row, asked_of, prompt_key, rows_by_prompt
from harness.steps.teacher_responses import _row
from helpers.tiny_tokenizers import byte_level

CHAT = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}<|{{ m.role }}|>\n"
    "{{ m.content }}<|turn|>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def test_the_last_turn_is_asked_for_and_learned_alone() -> None:
    said = (
        Message("user", "Name a colour."),
        Message("assistant", "Blue."),
        Message("user", "Another?"),
        Message("assistant", "Red."),
    )
    asked = asked_of(Conversation(said))
    assert isinstance(asked, Conversation)
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = CHAT
    set_template(tokenizer, Template(kind="chat"))
    assert prompt_text(tokenizer, asked).endswith("Blue.<|turn|>\n<|user|>\nAnother?<|turn|>\n<|assistant|>\n")
    assert is_rendered(tokenizer, asked)
    assert not is_rendered(tokenizer, Conversation((Message("system", "Be brief."), *asked.messages)))
    row = _row(
        {
            **answered_row(asked, "Green.", "Grass."),
            "output": "Green.",
            "ended": True,
        }
    )
    made = read_row(json.loads(json.dumps(row)), "here", "chat")
    assert isinstance(made, Conversation)
    assert [message.content for message in made.messages] == ["Name a colour.", "Blue.", "Another?", "Green."]
    assert made.messages[-1].reasoning == "Grass."
    assert [message.train for message in made.messages if message.role == "assistant"] == [False, None]


def test_the_answers_to_a_prompt_are_found_again_in_a_file_whatever_it_is(tmp_path: Path) -> None:
    """Of a text, an instruction with an input, and a conversation with tools, each answered twice, with reasoning."""
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "é"}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    turns = [
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "Here."},
        {"role": "assistant", "content": "There."},
    ]
    cases: list[tuple[Takes, dict[str, Any]]] = [
        ("text", {"prompt": "Zoë?\n", "output": "a"}),
        ("alpaca", {"instruction": "Say", "input": "it", "output": "a"}),
        ("chat", {"instruction": "Say", "output": "a"}),
        ("chat", {"messages": turns, "tools": [tool]}),
    ]
    for number, (takes, row) in enumerate(cases):
        asked = asked_of(read_row(row, "here", takes))
        path = tmp_path / f"{number}.jsonl"
        answers = [answered_row(asked, text, "Hm.") for text in ("one", "two")]
        other = answered_row(asked_of(read_row({**row, **OTHER[takes]}, "here", takes)), "three")
        path.write_text(
            "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in [answers[0], other, answers[1]])
        )
        found = rows_by_prompt(path, takes)
        assert len(found) == 2
        own = found[prompt_key(asked)]
        assert [json.dumps(each, sort_keys=True) for each in own] == [
            json.dumps(each, sort_keys=True) for each in answers
        ]


OTHER: dict[str, dict[str, Any]] = {
    "text": {"prompt": "Anna?\n"}, "alpaca": {"instruction": "Sing"},
    "chat": {"instruction": "Sing", "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]},
}  # fmt: skip

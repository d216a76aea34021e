"""What a teacher is asked of a conversation, and the example that its answer becomes."""

from __future__ import annotations

import json

from dskd.data.shapes import read_row
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Template, is_rendered, prompt_text, set_template
from harness.responses.prompts import answered_row, asked_of
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

"""What a server is asked for each prompt: messages or a text, and the parameters of the request."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import dskd.data
from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Instruction, Template, alpaca, prompt_text, set_template
from harness.responses.prompts import with_place_for_answer
from harness.responses.requests import Asking, askable, content_of, requests_of
from helpers.tiny_tokenizers import byte_level

CHAT = Asking("chat", "m", 9)
TEXT = Asking("completions", "m", 9)
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}


def call(number: int) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "add", "arguments": {"a": number}}}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_a_chat_api_gets_a_text_and_an_instruction_as_one_message_of_the_user() -> None:
    assert content_of("Say é.", CHAT, None) == [user("Say é.")]
    assert content_of(Instruction("Add.", "1 2"), CHAT, None) == [user("Add.\n\n1 2")]
    framed = replace(CHAT, template=Template(kind="alpaca"))
    assert content_of(Instruction("Add.", "1 2"), framed, None) == [user(alpaca(Instruction("Add.", "1 2")))]


def test_the_template_s_system_message_goes_before_what_has_none() -> None:
    asked = replace(CHAT, template=Template(kind="chat", system="Be brief."))
    own = Conversation((Message("system", "Be long."), Message("user", "Why?")))
    assert content_of(Instruction("Why?"), asked, None)[0] == {"role": "system", "content": "Be brief."}
    assert [message["content"] for message in content_of(own, asked, None)] == ["Be long.", "Why?"]


def test_calls_of_tools_have_ids_and_arguments_as_text() -> None:
    told = Conversation(
        (
            Message("user", "1 and 2?"),
            Message("assistant", "", tool_calls=(call(1), {**call(2), "id": "own"})),
            Message("tool", "one"),
            Message("tool", "two", tool_call_id="own"),
            Message("assistant", "", reasoning="hidden", tool_calls=(call(3),)),
            Message("tool", "three"),
        ),
        (TOOL,),
    )
    (request,) = requests_of([told], CHAT)
    _, first, one, two, second, three = request.content
    assert first["content"] is None
    assert [(each["id"], each["function"]["arguments"]) for each in first["tool_calls"]] == [
        ("call_1", '{"a": 1}'),
        ("own", '{"a": 2}'),
    ]
    assert [each["tool_call_id"] for each in (one, two, three)] == ["call_1", "own", "call_3"]
    assert "hidden" not in str(second)
    assert request.parameters["tools"] == [TOOL]
    assert told.messages[1].tool_calls[0]["function"]["arguments"] == {"a": 1}, "the example itself is not changed"


def test_a_completions_api_gets_the_ids_that_a_local_teacher_gets() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT_TEMPLATE
    set_template(tokenizer, Template(kind="chat"))
    asked = Instruction("Add.", "1 2")
    expected = dskd.data.encode_prompt(tokenizer, prompt_text(tokenizer, asked))
    (request,) = requests_of([asked], TEXT, tokenizer)
    assert request.content == expected
    assert tokenizer.decode(request.content) == "user: Add.\n\n1 2<|end|>assistant: "


def test_without_a_tokenizer_a_completions_api_gets_the_text() -> None:
    assert content_of("Once upon", TEXT, None) == "Once upon"
    asked = Instruction("Add.", "1 2")
    assert content_of(asked, replace(TEXT, template=Template(kind="alpaca")), None) == alpaca(asked)
    for prompt in (asked, Conversation((Message("user", "Why?"),))):
        with pytest.raises(InputError, match=r"only a template makes one .*; fix: "):
            content_of(prompt, TEXT, None)


def test_conversations_that_a_tokenizer_s_template_does_not_take_are_not_asked() -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = CHAT_TEMPLATE
    set_template(tokenizer, Template(kind="chat"))
    fine = Conversation((Message("user", "Why?"),))
    refused = Conversation((Message("system", "Be brief."), *fine.messages))
    assert askable([fine, refused], tokenizer) == ([fine], 1)
    assert askable([fine, refused], None) == ([fine, refused], 0)


def test_each_sample_has_a_request_and_a_seed_of_its_own_and_both_stay_the_same_with_more() -> None:
    sampled = replace(CHAT, samples=2, temperature=0.7, seed=5)
    few = list(requests_of(["a", "b"], sampled))
    more = {request.key: request.hash for request in requests_of(["a", "b", "c"], replace(sampled, samples=3))}
    assert [request.key for request in few] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    seeds = {request.parameters["seed"] for request in few}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert all(more[request.key] == request.hash for request in few)
    assert {request.hash for request in requests_of(["a", "b"], replace(sampled, seed=6))}.isdisjoint(more.values())


def test_all_samples_of_a_prompt_can_come_from_one_request() -> None:
    (request,) = requests_of(["a"], replace(CHAT, samples=4, together=True, temperature=1.0))
    assert (request.samples, request.parameters["n"]) == (4, 4)


def test_parameters_are_added_and_left_out() -> None:
    given = {"top_p": 0.9, "seed": None, "temperature": None, "max_completion_tokens": 77}
    (request,) = requests_of(["a"], replace(CHAT, parameters=given))
    assert request.parameters == {"top_p": 0.9, "max_completion_tokens": 77}
    template = Template(kind="chat", arguments={"enable_thinking": False})
    (request,) = requests_of(["a"], replace(CHAT, template=template))
    assert request.parameters["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize("name", ["messages", "prompt", "stream", "n", "seed", "tools", "model"])
def test_what_the_harness_sets_itself_cannot_be_given(name: str) -> None:
    with pytest.raises(InputError, match=rf"^--parameter {name}: is set by the harness itself .*; fix: "):
        replace(CHAT, parameters={name: 1}).check("--parameter")


def test_equal_samples_are_refused() -> None:
    replace(CHAT, samples=1).check("parameters")
    replace(CHAT, samples=2, temperature=0.1).check("parameters")
    replace(CHAT, samples=2, parameters={"temperature": None}).check("parameters")  # the server's own
    for asking in (replace(CHAT, samples=2), replace(CHAT, samples=2, temperature=1.0, parameters={"temperature": 0})):
        with pytest.raises(InputError, match="samples: 2 at temperature 0 would be the same; fix: "):
            asking.check("parameters")


def test_rows_of_prompts_alone_are_read_as_examples() -> None:
    talk = [{"role": "user", "content": "Why?"}]
    answered = [*talk, {"role": "assistant", "content": "So."}]
    rows = [{"prompt": "p"}, {"instruction": "i", "output": ""}, {"question": "q"}, {"messages": talk}]
    kept = [{"prompt": "p", "output": "o"}, {"question": "q", "answer": "a"}, {"messages": answered}]
    made = [row for _, row in with_place_for_answer([("here", row) for row in rows + kept])]
    assert made[4:] == kept
    assert [row.get("output") for row in made[:2]] == ["…", "…"]
    assert made[2]["answer"] == "…"
    assert [message["role"] for message in made[3]["messages"]] == ["user", "assistant"]

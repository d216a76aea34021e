"""Lists of messages in every form that people have them, as one kind of conversation."""

from __future__ import annotations

from typing import Any

import pytest

from dskd.data.messages import Unusable, read_conversation, split_thought
from dskd.tokenization.conversations import Conversation, Message, to_messages

USER = {"role": "user", "content": "a?"}
ANSWER = {"role": "assistant", "content": "b"}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


def read(*messages: Any, **options: Any) -> Conversation:
    return read_conversation(list(messages), "f:1", **options)


def last(*messages: Any, **options: Any) -> Message:
    return read(*messages, **options).messages[-1]


def test_openai_s_and_sharegpt_s_messages_are_the_same_conversation() -> None:
    expected = Conversation((Message("system", "s"), Message("user", "a?"), Message("assistant", "b")))
    assert read({"role": "system", "content": "s"}, USER, ANSWER) == expected
    assert (
        read({"from": "system", "value": "s"}, {"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"})
        == expected
    )
    assert read(USER, ANSWER, system="s") == expected
    assert read({"role": "system", "content": "s"}, USER, ANSWER, system="s") == expected
    assert read({"role": "developer", "content": "s"}, USER, ANSWER).messages[0].role == "developer"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("b", "b"),
        ([{"type": "text", "text": "b"}], "b"),
        ([{"type": "text", "value": "b"}, {"type": "output_text", "text": "c"}], "bc"),
        (["b", "c"], "bc"),
        ("  b \n", "  b \n"),
    ],
)
def test_content_is_kept_to_the_character(content: Any, text: str) -> None:
    assert last(USER, {"role": "assistant", "content": content}) == Message("assistant", text)


@pytest.mark.parametrize(
    "given",
    [
        {"content": None, "tool_calls": [{"id": "1", **CALL}]},
        {
            "content": "",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
        },
        {"tool_calls": [{"id": "1", "name": "f", "arguments": {"x": 1}}]},
        {"content": [{"type": "tool_call", "value": '{"id": "1", "name": "f", "arguments": {"x": 1}}'}]},
    ],
)
def test_a_call_of_a_tool_has_its_arguments_as_an_object(given: dict[str, Any]) -> None:
    assert last(USER, {"role": "assistant", **given}) == Message("assistant", "", tool_calls=({"id": "1", **CALL},))


def test_the_older_function_call_is_a_call_of_a_tool() -> None:
    older = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    found = read(USER, older, {"role": "function", "name": "f", "content": "2"}, ANSWER)
    assert found.messages[1].tool_calls == (CALL,)
    assert found.messages[2] == Message("tool", "2", name="f")


def test_sharegpt_s_calls_belong_to_the_turn_before_them() -> None:
    call = {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'}
    human, said = {"from": "human", "value": "a?"}, {"from": "gpt", "value": "Let me see."}
    result = {"from": "observation", "value": "2"}
    assert read(human, call, call, result, said).messages[1:3] == (
        Message("assistant", "", tool_calls=(CALL, CALL)),
        Message("tool", "2"),
    )
    assert read(human, said, call).messages[1:] == (Message("assistant", "Let me see.", tool_calls=(CALL,)),)
    thought = {"from": "function_call", "value": "<think>\nf it is\n</think>\n" + call["value"]}
    assert last(human, thought) == Message("assistant", "", reasoning="f it is", tool_calls=(CALL,))
    several = {"from": "function_call", "value": f"[{call['value']}, {call['value']}]"}
    assert last(human, several).tool_calls == (CALL, CALL)


def test_a_tool_s_message_keeps_what_it_answers() -> None:
    tool = {"role": "tool", "content": "2", "tool_call_id": "1", "name": "f", "unknown": True}
    assert read(USER, tool, ANSWER).messages[1] == Message("tool", "2", tool_call_id="1", name="f")


@pytest.mark.parametrize(
    "given",
    [
        {"content": "b", "reasoning_content": "r"},
        {"content": "b", "reasoning": "r", "thinking": "r"},
        {"content": "b", "reasoning_content": None, "thinking": "r"},
        {"content": [{"type": "reasoning", "value": "r"}, {"type": "text", "value": "b"}]},
        {"content": [{"type": "thinking", "thinking": "r"}, {"type": "text", "text": "b"}]},
        {"content": "<think>\nr\n</think>\n\nb"},
        {"content": " \n<think>r</think>b"},
    ],
)
def test_reasoning_stands_apart_from_the_answer(given: dict[str, Any]) -> None:
    assert last(USER, {"role": "assistant", **given}) == Message("assistant", "b", reasoning="r")


@pytest.mark.parametrize("text", ["b <think>r</think>", "<think>r", "r</think>b", "<thinking>r</thinking>b"])
def test_only_a_whole_thought_at_the_start_is_reasoning(text: str) -> None:
    assert split_thought(text) == (None, text)
    assert last(USER, {"role": "assistant", "content": text}).content == text


def test_an_empty_thought_is_not_the_same_as_none_and_splitting_can_be_left_out() -> None:
    text = "<think>\n\n</think>\n\nb"
    assert last(USER, {"role": "assistant", "content": text}) == Message("assistant", "b", reasoning="")
    assert last(USER, {"role": "assistant", "content": text}, split_reasoning=False) == Message("assistant", text)
    assert read({"role": "user", "content": text}, ANSWER).messages[0].content == text
    kept = {"role": "assistant", "content": "<think>r</think>b", "reasoning": "other"}
    assert last(USER, kept) == Message("assistant", "<think>r</think>b", reasoning="other")


def test_weights_say_what_is_trained_on() -> None:
    first, second = {**ANSWER, "loss_weight": 0.0}, {**ANSWER, "weight": 1, "train": True}
    found = read({**USER, "loss_weight": 0.0}, first, USER, second)
    assert [message.train for message in found.messages] == [None, False, None, True]
    assert [message.train for message in read(USER, ANSWER, USER, second, train_on="last").messages] == [
        None, False, None, True,
    ]  # fmt: skip
    assert [message.train for message in read(USER, ANSWER).messages] == [None, None]


def test_what_follows_the_last_trained_message_is_left_out_and_nothing_else() -> None:
    found = read(USER, ANSWER, USER, {"role": "tool", "content": "x"})
    assert len(found.messages) == 2
    assert len(read(USER, ANSWER, USER, {**ANSWER, "train": False}).messages) == 2
    assert len(read(USER, {**ANSWER, "train": False}, USER, ANSWER).messages) == 4


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        [{"name": "f", "parameters": {}}],
        [{"type": "function", "name": "f", "parameters": {}}],
        '[{"name": "f", "parameters": {}}]',
        ['{"name": "f", "parameters": {}}'],
        {"name": "f", "parameters": {}},
    ],
)
def test_tools_are_as_templates_take_them(tools: Any) -> None:
    assert read(USER, ANSWER, tools=tools).tools == ({"type": "function", "function": {"name": "f", "parameters": {}}},)


@pytest.mark.parametrize("tools", [None, "", "[]", []])
def test_no_tools_are_none(tools: Any) -> None:
    assert read(USER, ANSWER, tools=tools).tools == ()


REFUSED: list[tuple[list[Any] | Any, dict[str, Any], str]] = [
    ("text", {}, "the messages are no list, or an empty one"),
    ([], {}, "the messages are no list, or an empty one"),
    (["text"], {}, "a message is no object"),
    ([USER], {}, "has no message of the assistant"),
    ([{"content": "x"}], {}, "the role None of a message is not known"),
    ([USER, {"role": "critic", "content": "x"}], {}, "the role 'critic' of a message is not known"),
    ([USER, {"role": "assistant", "content": ""}], {}, "a message of the assistant that is to be trained on is empty"),
    ([USER, {"role": "assistant", "content": 3}], {}, "the content of a message is neither text nor a list of blocks"),
    ([{**USER, "content": [{"type": "image_url", "image_url": "x"}]}, ANSWER], {}, "a block of type 'image_url'"),
    ([{**USER, "images": ["x"]}, ANSWER], {}, "a message holds images, sound or video"),
    ([USER, {**ANSWER, "tool_calls": [{"function": {}}]}], {}, "a call of a tool has no name"),
    ([USER, {**ANSWER, "tool_calls": [{"name": "f", "arguments": "{x"}]}], {}, "the arguments of a call is no JSON"),
    ([USER, {**ANSWER, "tool_calls": [{"name": "f", "arguments": "[1]"}]}], {}, "arguments of a call of a tool are no JSON object"),
    ([USER, {"from": "function_call", "value": "f(1)"}], {}, "a call of a tool is no JSON"),
    ([{**USER, "reasoning": "r"}, ANSWER], {}, "a message of the user has calls of tools or reasoning"),
    ([USER, {**ANSWER, "reasoning": "r", "thinking": "s"}], {}, "a message has its reasoning twice"),
    ([USER, {**ANSWER, "weight": 0.5}], {}, "the weight of a message is neither 0 nor 1"),
    ([{**USER, "train": True}, ANSWER], {}, "a message of the user has the weight 1"),
    ([USER, {**ANSWER, "train": False}], {}, "has no message that is to be trained on"),
    ([USER, {**ANSWER, "train": False}], {"train_on": "last"}, "has no message that is to be trained on"),
    ([{"role": "system", "content": "s"}, USER, ANSWER], {"system": "t"}, "a system message among the messages and another"),
    ([USER, ANSWER], {"tools": "{x"}, "the tools is no JSON"),
    ([USER, ANSWER], {"tools": [{"description": "x"}]}, "a tool has no name"),
    ([USER, ANSWER], {"tools": [{"function": "f"}]}, "a tool has no name"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "options", "reason"), REFUSED, ids=[reason for *_, reason in REFUSED])
def test_what_cannot_be_kept_is_refused_with_the_place_and_a_reason(messages: Any, options: Any, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read_conversation(messages, "f:1", **options)
    assert reason in caught.value.reason
    assert str(caught.value).startswith("f:1: ")
    assert "fix:" in str(caught.value)


def test_messages_go_to_templates_without_reasoning_and_as_copies() -> None:
    found = read(
        USER, {**ANSWER, "reasoning": "r", "tool_calls": [CALL]}, {"role": "tool", "content": "2", "name": "f"}, ANSWER
    )
    made = to_messages(found)
    assert made[1] == {"role": "assistant", "content": "b", "tool_calls": [CALL]}
    assert made[2] == {"role": "tool", "content": "2", "name": "f"}
    made[1]["tool_calls"][0]["function"]["arguments"]["x"] = 2
    assert to_messages(found)[1]["tool_calls"] == [CALL]

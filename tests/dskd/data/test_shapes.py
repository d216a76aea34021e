"""Shapes of rows: detected by what models take, said, or made of columns; what would change the question is never dropped."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from dskd.data.examples import as_row, prompt_and_response
from dskd.data.messages import Lacking, Unusable
from dskd.data.options import DataOptions, Shape, Takes
from dskd.data.shapes import Example, Item, read_row, shape_of
from dskd.errors import InputError
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Instruction

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TALK = Conversation((Message("user", "q"), Message("assistant", "a")))
TEXT, ASKED = Example("q", "a"), Example(Instruction("q"), "a")


def read(row: dict[str, Any], takes: Takes = "chat", **options: Any) -> Item:
    return read_row(row, "f:1", takes, DataOptions(**options))


ROWS: dict[Shape, dict[str, Any]] = {
    "prompt/output": {"prompt": "q", "output": "a"},
    "prompt/completion": {"prompt": "q", "completion": "a"},
    "prompt/response": {"prompt": "q", "response": "a"},
    "question/answer": {"question": "q", "answer": "a"},
    "instruction/output": {"instruction": "q", "input": "", "output": "a"},
    "messages": {"messages": TURNS},
    "conversations": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
}


def test_every_shape_has_a_row_here() -> None:
    assert set(ROWS) == set(get_args(Shape))


@pytest.mark.parametrize("shape", ROWS)
def test_a_shape_is_detected_and_read_by_the_models_that_take_it(shape: Shape) -> None:
    row = {"id": 7, "source": "web", "reward": 0.5, **ROWS[shape]}
    whole, asked = shape.startswith("prompt"), shape in ("question/answer", "instruction/output")
    expected = TEXT if whole else ASKED if asked else TALK
    able: list[Takes] = ["text", "any"] if whole else ["alpaca", "chat", "any"] if asked else ["chat", "any"]
    for takes in get_args(Takes):
        if takes in able:
            assert shape_of(row, takes) == shape
            assert read(row, takes) == read(row, takes, shape=shape) == expected
            continue
        with pytest.raises(InputError) as caught:
            read(row, takes)
        assert not isinstance(caught.value, Unusable)
        assert f"the row has {', '.join(row)}" in str(caught.value)
        assert "fix:" in str(caught.value)


def test_a_row_of_several_shapes_is_what_the_models_take() -> None:
    row = {**ROWS["instruction/output"], **ROWS["messages"], "prompt": "Q: q\nA:"}
    assert read(row, "text") == Example("Q: q\nA:", "a")
    assert read(row, "alpaca") == ASKED
    assert read(row, "chat") == TALK
    assert read(row, "chat", shape="instruction/output") == ASKED


def test_an_error_says_how_to_map_the_row() -> None:
    for row, takes, fix in (
        (ROWS["prompt/completion"], "chat", 'instruction: "{prompt}", output: "{completion}"'),
        (ROWS["question/answer"], "text", 'prompt: "{question}", output: "{answer}"'),
        ({"problem": "q", "message_content": "a"}, "chat", 'instruction: "{problem}", output: "{message_content}"'),
        ({"query": "q", "target": 4}, "text", 'prompt: "{query}", output: "{target}"'),
        ({"x": 1}, "text", 'prompt: "{COLUMN}", output: "{COLUMN}", or say its shape'),
        (ROWS["messages"], "text", "the models have no template; the row has messages; fix: set template: chat"),
        (
            ROWS["messages"],
            "alpaca",
            "the models have the template alpaca; the row has messages; fix: set template: chat",
        ),
    ):
        with pytest.raises(InputError) as caught:
            read(row, takes)  # type: ignore[arg-type]
        assert fix in str(caught.value)
    with pytest.raises(InputError, match="and 8 more"):
        read({str(k): k for k in range(20)})


def test_system_and_history_are_used_in_a_chat_and_refused_elsewhere() -> None:
    row = {**ROWS["instruction/output"], "input": "i", "system": "s", "history": [["x", "y"]]}
    asked = (Message("system", "s"), Message("user", "x"), Message("assistant", "y"), Message("user", "q\n\ni"))
    assert read(row) == Conversation((*asked, Message("assistant", "a")))
    for key in ("system", "history"):
        with pytest.raises(
            InputError, match=f"{key} is for models with a chat template alone; .*fix: set template: chat"
        ):
            read({**ROWS["instruction/output"], key: row[key]}, "alpaca")
    for key in ("system", "history", "input", "tools"):
        with pytest.raises(InputError, match=f"{key} changes what is asked, and has no place beside prompt, output"):
            read({**ROWS["prompt/output"], key: "x"}, "text")
    # Beside a whole prompt the parts of an instruction are what the prompt was made of.
    assert read({**ROWS["prompt/output"], "instruction": "q", "input": "i"}, "text") == TEXT


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_a_column_with_nothing_in_it_changes_nothing(nothing: Any) -> None:
    beside = dict.fromkeys(("system", "history", "images", "tools", "context"), nothing)
    assert read({**ROWS["instruction/output"], **beside}, "alpaca") == ASKED
    assert read({**ROWS["prompt/output"], **beside, "input": nothing}, "text") == TEXT
    assert read({**ROWS["messages"], **beside}) == TALK


def test_the_columns_beside_messages_are_used() -> None:
    tools = '[{"name": "f"}]'
    found = read({**ROWS["messages"], "system": "s", "tools": tools})
    assert found == Conversation(
        (Message("system", "s"), *TALK.messages), ({"type": "function", "function": {"name": "f"}},)
    )
    assert read({**ROWS["question/answer"], "tools": tools}).tools == found.tools  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", ROWS)
def test_a_row_with_images_or_with_context_is_not_read_without_them(shape: Shape) -> None:
    takes: Takes = "text" if shape.startswith("prompt") else "chat"
    with pytest.raises(Unusable, match="has images"):
        read({**ROWS[shape], "images": ["a.png"]}, takes)
    with pytest.raises(InputError, match=r"context changes what is asked.*fix: name the columns to use"):
        read({**ROWS[shape], "context": "c"}, takes)


def test_what_is_missing_in_one_row_is_told_apart_from_another_shape() -> None:
    for row, takes in (
        ({"prompt": "q", "output": ""}, "text"),
        ({"prompt": "q", "output": None}, "text"),
        ({"instruction": "q", "output": ""}, "chat"),
        ({"question": "q", "answer": None}, "chat"),
    ):
        with pytest.raises(Lacking, match="is empty"):
            read(row, takes)  # type: ignore[arg-type]
    for row in ({"prompt": "q"}, {"prompt": "q", "output": 4}, {"prompt": None, "output": "a"}):
        with pytest.raises(InputError, match="f:1: prompt and output must be strings") as caught:
            read(row, "text")
        assert not isinstance(caught.value, Unusable)
    with pytest.raises(Unusable, match="the history is no list of"):
        read({**ROWS["instruction/output"], "history": [["x"]]})
    with pytest.raises(Unusable, match="the system message is no text"):
        read({**ROWS["instruction/output"], "system": ["x"]})


def test_trl_s_prompts_that_are_messages_are_not_trained_on() -> None:
    before = [TURNS[0], {"role": "assistant", "content": "x"}, TURNS[0]]
    found = read({"prompt": before, "completion": TURNS[1:]})
    assert isinstance(found, Conversation)
    assert [message.train for message in found.messages] == [None, False, None, None]
    assert read({"prompt": TURNS[:1], "completion": "a"}) == TALK
    with pytest.raises(InputError, match="what follows it is neither a list nor text"):
        read({"prompt": TURNS[:1], "completion": 3})
    with pytest.raises(InputError, match="holds a conversation, and the models have no template"):
        read({"prompt": TURNS[:1], "completion": TURNS[1:]}, "text")


def test_columns_of_other_names_by_template() -> None:
    row = {"problem": "q", "thought": "r", "reply": "a", "rules": "s", "unused": [1]}
    assert read(row, "text", prompt="{problem}", output="{reply}") == TEXT
    assert read(row, "alpaca", instruction="{problem}", output="{reply}") == ASKED
    both = Example(Instruction("By s.", "q"), "a")
    assert read(row, "alpaca", instruction="By {rules}.", input="{problem}", output="{reply}") == both
    found = read(row, instruction="{problem}", output="{reply}", reasoning="{thought}", system="{rules}")
    assert found == Conversation(
        (Message("system", "s"), Message("user", "q"), Message("assistant", "a", reasoning="r"))
    )
    row |= {"thought": None, "rules": None}
    assert read(row, instruction="{problem}", output="{reply}", reasoning="{thought}", system="{rules}") == ASKED
    with pytest.raises(Lacking, match="column 'thought', which the template names, is neither text nor a number"):
        read(row, instruction="{thought}", output="{reply}")
    with pytest.raises(InputError, match="has no column 'other', which the template names; columns: problem, thought"):
        read(row, instruction="{other}", output="{reply}")


def test_columns_of_messages_and_tools_by_name() -> None:
    row = {"dialog": TURNS, "functions_json": '[{"name": "f"}]', "rules": "s", "context": "c"}
    found = read(row, messages="dialog", tools="functions_json", system="Obey: {rules}")
    assert isinstance(found, Conversation)
    assert found.messages[0] == Message("system", "Obey: s")
    assert len(found.tools) == 1
    for options, message in (
        ({"messages": "talk"}, "the column of messages, 'talk', is not there; the row has dialog"),
        ({"messages": "dialog", "tools": "t"}, "the column of tools, 't', is not there"),
    ):
        with pytest.raises(InputError, match=message):
            read(row, **options)
    with pytest.raises(InputError, match="holds a conversation, and the models have no template"):
        read(row, "text", messages="dialog")


def test_thoughts_before_an_output_are_split_only_where_it_is_asked_for() -> None:
    row = {"instruction": "q", "output": "<think>r</think>a"}
    assert read(row) == Example(Instruction("q"), "<think>r</think>a")
    assert read(row, split_reasoning=True) == Conversation(
        (Message("user", "q"), Message("assistant", "a", reasoning="r"))
    )
    talk = {"messages": [TURNS[0], {"role": "assistant", "content": row["output"]}]}
    assert read(talk).messages[-1].reasoning == "r"  # type: ignore[union-attr]
    assert read(talk, split_reasoning=False).messages[-1].content == row["output"]  # type: ignore[union-attr]
    with pytest.raises(InputError, match="split_reasoning is for models with a chat template alone"):
        read(row, "alpaca", split_reasoning=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "{a}"}, "these keys go together"),
        ({"instruction": "{a}"}, "these keys go together"),
        ({"output": "{a}"}, "these keys go together"),
        ({"system": "{a}"}, "these keys go together"),
        ({"prompt": "{a}", "output": "{b}", "system": "{c}"}, "these keys go together"),
        ({"messages": "m", "output": "{b}"}, "these keys go together"),
        ({"prompt": "{a}", "output": "{b}", "tools": "t"}, "`tools` means nothing to a prompt"),
        ({"shape": "messages", "messages": "m"}, "`shape` says which columns there are"),
        ({"shape": "prompt/output", "prompt": "{a}", "output": "{b}"}, "`shape` says which columns there are"),
        ({"prompt": "a", "output": "{b}"}, "names no column"),
        ({"prompt": "{a!r}", "output": "{b}"}, "is not a plain column name"),
        ({"shape": "alpaca"}, "Input should be"),
        ({"train_on": "first"}, "Input should be"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataOptions(**options)


def test_an_example_is_the_same_after_it_was_written() -> None:
    rows: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (ROWS["instruction/output"], {}),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "<think>r</think>a"}]}, {}),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "<think>r</think>a"}]}, {"split_reasoning": False}),
        ({"messages": TURNS * 2, "tools": [{"name": "f"}], "system": "s"}, {"train_on": "last"}),
        (
            {
                "messages": [
                    *TURNS[:1],
                    {"role": "assistant", "tool_calls": [{"id": "1", "name": "f", "arguments": {}}]},
                ]
            },
            {},
        ),
    ]
    for row, options in rows:
        item = read(row, **options)
        assert read(as_row(item)) == item
    assert read(as_row(TEXT), "text") == TEXT


def test_the_texts_of_an_example_are_what_is_asked_and_what_answers() -> None:
    assert prompt_and_response(TEXT) == (["q"], ["a"])
    assert prompt_and_response(Example(Instruction("q", "i"), "a")) == (["q", "i"], ["a"])
    talk = Conversation((Message("system", "s"), Message("user", "q"), Message("assistant", "a", reasoning="r")))
    assert prompt_and_response(talk) == (["s", "q"], ["r", "a"])

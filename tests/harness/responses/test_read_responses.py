"""What becomes of a response: an example, or the reason why it is left out."""

from __future__ import annotations

from typing import Any

import pytest

from dskd.data.shapes import read_row
from dskd.tokenization.conversations import Conversation, Message
from dskd.tokenization.prompt_templates import Instruction
from dskd.tokenization.reasoning import KNOWN, ReasoningMarkers
from harness.costs.token_price import TokenPrice
from harness.responses.reading import read_response
from harness.responses.report import cost_of, counts_of

TALK = Conversation((Message("user", "Why?"),))
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


def choice(text: str, **other: Any) -> dict[str, Any]:
    return {"text": text, "reasoning": None, "finish_reason": "stop", "refusal": None, "tool_calls": (), **other}


def read(prompt: Any, given: dict[str, Any], markers: ReasoningMarkers | None = None, opened: bool = False) -> Any:
    return read_response(prompt, given, markers, opened=opened)


def test_a_response_becomes_the_example_that_its_prompt_came_from() -> None:
    assert read("p", choice(" a")) == ("kept", {"prompt": "p", "output": " a"})
    assert read(Instruction("i", "j"), choice("a"))[1] == {"instruction": "i", "input": "j", "output": "a"}
    outcome, row = read(TALK, choice("So."))
    assert (outcome, read_row(row, "here", "chat")) == (
        "kept",
        Conversation((*TALK.messages, Message("assistant", "So."))),
    )


OUTCOMES = {
    "without_end": [
        choice("half", finish_reason="length"),
        choice("half", finish_reason=None),
        choice("half", finish_reason="abort"),
        choice("<think>never ends"),
    ],
    "empty": [choice(""), choice("", reasoning="only thought"), choice("<think>only thought</think>\n")],
    "refused": [choice("", refusal="I cannot."), choice("ha", finish_reason="content_filter")],
    "unreadable": [choice("\ud800"), choice("", tool_calls=({"function": {"name": "add", "arguments": "{}"}},))],
}


@pytest.mark.parametrize(("outcome", "given"), [(name, each) for name, every in OUTCOMES.items() for each in every])
def test_what_cannot_be_learned_from_is_left_out_for_a_reason(outcome: str, given: dict[str, Any]) -> None:
    assert read("p", given) == (outcome, None)


@pytest.mark.parametrize("markers", KNOWN, ids=lambda each: each.opening)
def test_reasoning_in_the_text_is_told_apart_by_every_known_marker(markers: ReasoningMarkers) -> None:
    text = f"{markers.opening}a thought{markers.end}{markers.closing}\n\nThe answer."
    for known in (markers, None):
        assert read("p", choice(text), known) == ("kept", {"prompt": "p", "output": "The answer."})
    row = read(TALK, choice(text))[1]
    assert (row["messages"][-1]["content"], row["messages"][-1]["reasoning_content"]) == ("The answer.", "a thought")


def test_reasoning_that_the_prompt_opened_is_told_apart() -> None:
    assert read("p", choice("a thought\n</think>\n\nSo."))[1]["output"] == "So."
    assert read("p", choice("a thought"), KNOWN[0], opened=True) == ("without_end", None)


def test_reasoning_that_the_server_takes_out_is_kept_of_conversations_alone() -> None:
    given = choice("\n\nSo.", reasoning="\na thought\n")
    assert read("p", given)[1] == {"prompt": "p", "output": "So."}
    assert read(TALK, given)[1]["messages"][-1] == {
        "role": "assistant",
        "content": "So.",
        "reasoning_content": "a thought",
    }


def test_a_marker_that_an_answer_speaks_of_is_none() -> None:
    text = "Write `</think>` after it."
    assert read("p", choice(text))[1]["output"] == text


def test_calls_of_tools_are_kept_where_tools_were_offered() -> None:
    calls = ({"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}},)
    asked = Conversation(TALK.messages, (TOOL,))
    outcome, row = read(asked, choice("", finish_reason="tool_calls", tool_calls=calls))
    made = read_row(row, "here", "chat")
    assert outcome == "kept"
    assert isinstance(made, Conversation)
    assert made.messages[-1].tool_calls[0]["function"] == {"name": "add", "arguments": {"a": 1}}
    broken = ({"function": {"name": "add", "arguments": '{"a": '}},)
    assert read(asked, choice("", tool_calls=broken)) == ("unreadable", None)


def reply(prompt: int | None = 1_000_000, completion: int | None = 500_000) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "began": 0.0, "seconds": 1.0, "retries": 2}


def test_the_cost_is_that_of_the_price_given_and_never_guessed() -> None:
    price = TokenPrice(prompt=0.5, completion=2.0)
    cost = cost_of([reply(), reply()], price)
    assert (cost["cost"], cost["requests"], cost["retries"], cost["wall_seconds"]) == (3.0, 2, 4, 1.0)
    assert "cost" not in cost_of([reply()], None)
    unknown = cost_of([reply(), reply(completion=None)], price)
    assert (unknown["prompt_tokens"], unknown["completion_tokens"], unknown["cost"]) == (2_000_000, None, None)


def test_counts_add_up() -> None:
    counts = counts_of(["kept", "kept", "empty", "refused"], {"filtered": 2, "too_long": 3})
    assert counts == {
        "kept": 2, "without_end": 0, "empty": 1, "refused": 3, "unreadable": 0, "prompt_too_long": 3,
    }  # fmt: skip

"""Published conversations: every file is read whole, and what is in it is found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dskd.data.examples import as_row, iter_examples
from dskd.data.messages import Unusable
from dskd.data.options import DataOptions
from dskd.data.shapes import read_row
from dskd.tokenization.conversations import Conversation

SOLUTIONS = DataOptions(instruction="{problem}", output="{message_content}", reasoning="{message_thinking}")
# Rows, and how many messages of the assistant, rows with a system message, with tools and with reasoning, and calls of tools they have.
FILES = {
    "fastchat/dummy_conversation.json": (500, 1000, 0, 0, 0, 0),
    "gym/reasoning.jsonl": (111, 155, 28, 16, 111, 43),
    "llamafactory/glaive_toolcall_en_demo.json": (300, 957, 0, 191, 0, 211),
    "llamafactory/reason_tool_use_demo_50.jsonl": (50, 112, 50, 48, 50, 68),
    "llamafactory/v1_sft_demo.jsonl": (500, 500, 0, 0, 0, 0),
    "oasst/en.jsonl": (299, 537, 0, 0, 0, 0),
    "reasoning_from_scratch/sample_ollama_outputs.json": (5, 5, 0, 0, 5, 0),
    "reasoning_from_scratch/sample_openrouter_outputs.json": (5, 5, 0, 0, 5, 0),
    "tau_bench/airline.jsonl": (20, 285, 20, 0, 0, 123),
    "tinker/conversations.jsonl": (128, 128, 25, 0, 0, 0),
}

pytestmark = pytest.mark.real


@pytest.fixture
def folder(real_data: Path) -> Path:
    found = real_data / "conversations"
    if not found.is_dir():
        pytest.skip("no published conversations among the real data")
    return found


def test_every_file_is_known_here(folder: Path) -> None:
    assert {path.relative_to(folder).as_posix() for path in folder.glob("*/*.json*")} == FILES.keys()


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_whole(folder: Path, name: str) -> None:
    options = SOLUTIONS if name.startswith("reasoning_from_scratch") else DataOptions()
    refused: list[Unusable] = []
    items = list(iter_examples(folder / name, "chat", options, left_out=refused.append))
    assert refused == []
    assert all(isinstance(item, Conversation) for item in items)
    found: Counter[str] = Counter()
    for item in items:
        assert isinstance(item, Conversation)
        own = [message for message in item.messages if message.role == "assistant"]
        assert item.messages[-1] is own[-1]
        found["turns"] += len(own)
        found["system"] += item.messages[0].role == "system"
        found["tools"] += bool(item.tools)
        found["reasoning"] += any(message.reasoning is not None for message in own)
        found["calls"] += sum(len(message.tool_calls) for message in own)
        assert not any(message.content.lstrip().startswith("<think>") for message in own)
        assert read_row(as_row(item), name, "chat") == item
    counted = tuple(found[key] for key in ("turns", "system", "tools", "reasoning", "calls"))
    assert (len(items), *counted) == FILES[name]

"""Real chat templates beside the repository, conversations to render with them, and what of it cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dskd.tokenization.conversations import Conversation, Message
from helpers.paths import SHARED

FOLDER = SHARED / "data" / "chat_templates"

_ANSWERS = [
    "Blue.",
    "Green, or red.",
    "It is 12 - 5 = 7.\n\nSo seven.",
    "Nein, später!",
    "def f(x):\n    return x",
    "42",
]
_THOUGHTS = ["The sky is blue.", "Grass?", "12 take away 5.", "Hmm.", "A function.", "The answer."]


def _turns(count: int, *, system: bool = False, thoughts: bool = False) -> Conversation:
    messages = [Message("system", "Answer briefly.")] if system else []
    for k in range(count):
        thought = _THOUGHTS[k] if thoughts else None
        messages += [Message("user", f"Question {k}: name it."), Message("assistant", _ANSWERS[k], reasoning=thought)]
    return Conversation(tuple(messages))


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city."}},
            "required": ["city"],
        },
    },
}
_CALL = {"id": "call12345", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
_TOOLS = Conversation(
    (
        Message("user", "What is the weather in Oslo?"),
        Message("assistant", "", tool_calls=(_CALL,)),
        Message("tool", "It rains.", tool_call_id="call12345", name="weather"),
        Message("assistant", "It rains in Oslo."),
    ),
    (TOOL,),
)

CONVERSATIONS: dict[str, Conversation] = (
    {f"{count} turns": _turns(count) for count in range(1, 7)}
    | {"system": _turns(2, system=True), "tools": _TOOLS}
    | {f"reasoning in {count} turns": _turns(count, thoughts=True) for count in (1, 2, 3)}
)

# The settings of `reasoning` that a template can be used with, where those are not all three.
USABLE: dict[str, tuple[str, ...]] = {
    # End a turn with no special token.
    "chujiezheng/falcon-instruct.jinja": (),
    "chujiezheng/solar-instruct.jinja": (),
    "trl/glm4moe.jinja": (),
    # Finished turns begin otherwise than the generation prompt ends.
    "chujiezheng/vicuna.jinja": (),
    "chujiezheng/zephyr.jinja": (),
    # Not without tools.
    "llama.cpp/NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja": (),
    # Open a block of reasoning in every prompt.
    "llama.cpp/NVIDIA-Nemotron-Nano-v2.jinja": ("train", "keep"),
    # Close it in every prompt unless an argument says otherwise.
    "axolotl/exaone4.jinja": ("cut",),
    "minimind/minimind.jinja": ("cut",),
    "trl/qwen3_5_nothink.jinja": ("cut",),
    "llama.cpp/deepseek-ai-DeepSeek-V3.1.jinja": ("cut",),
}


def template_files() -> list[Path]:
    """The templates, none where there is no folder beside the repository."""
    return sorted(FOLDER.glob("*/*.jinja"))

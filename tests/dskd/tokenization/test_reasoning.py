"""Reasoning and answer of hostile text, and the markers of real chat templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.tokenization.reasoning import (
    KNOWN,
    ReasoningMarkers,
    Split,
    markers_of,
    opens,
    set_markers,
    split_reasoning,
    starts_reasoning,
)
from helpers.paths import SHARED
from helpers.tiny_tokenizers import byte_level

THINK = ReasoningMarkers("<think>", "</think>")
HARMONY = next(markers for markers in KNOWN if "analysis" in markers.opening)
TEMPLATES = SHARED / "data" / "chat_templates"
TOKENIZERS = SHARED / "data" / "tokenizers"


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        pytest.param("42", False, Split(None, "42", True), id="no marker at all"),
        pytest.param("<think>\nsix\n</think>\n\n42", False, Split("six", "42", True), id="as most models write it"),
        pytest.param("six\n</think>\n\n42", True, Split("six", "42", True), id="opened by the prompt"),
        pytest.param("six</think>42", False, Split("six", "42", True), id="closed, though nothing opened it"),
        pytest.param("<think></think>    return x", False, Split("", "    return x", True), id="indentation stays"),
        pytest.param("</think>42", True, Split("", "42", True), id="closed at once"),
        pytest.param("<think>six times", False, Split("six times", "", False), id="never closed"),
        pytest.param("six times", True, Split("six times", "", False), id="opened by the prompt, never closed"),
        pytest.param("", True, Split("", "", False), id="opened by the prompt, nothing written"),
        pytest.param("", False, Split(None, "", True), id="nothing written"),
        pytest.param("<think>six</", False, Split("six</", "", False), id="cut within the closing marker"),
        pytest.param("Sure.\n<think>six", False, Split("Sure.\n<think>six", "", False), id="opened on a later line"),
        pytest.param(
            "<think>a</think>b</think>c", False, Split("a</think>b", "c", True), id="closed twice: the last counts"
        ),
        pytest.param("<think>a<think>b</think>c", False, Split("a<think>b", "c", True), id="opened twice, closed once"),
        pytest.param("<think><think>a</think></think>b", False, Split("<think>a</think>", "b", True), id="nested"),
        pytest.param(
            "<think>a</think>x\n<think>b</think>y",
            False,
            Split("a</think>x\n<think>b", "y", True),
            id="two blocks: what follows the last is the answer",
        ),
        pytest.param(
            "<think>a</think>\n\n<think>\nb", False, Split("a</think>\n\n<think>\nb", "", False), id="opened again"
        ),
        pytest.param(
            "<think>a</think>Write <think> first.",
            False,
            Split("a", "Write <think> first.", True),
            id="mentioned after",
        ),
        pytest.param("Write <think> first.", False, Split(None, "Write <think> first.", True), id="mentioned only"),
        pytest.param(
            "<think>a</think>```python\nre.sub('<think>.*</think>', '', text)\n```\n",
            False,
            Split("a", "```python\nre.sub('<think>.*</think>', '', text)\n```\n", True),
            id="in a code block of the answer",
        ),
        pytest.param(
            "<think>a</think>End with `</think>`.", False, Split("a", "End with `</think>`.", True), id="in inline code"
        ),
        pytest.param(
            "<think>They want `</think>` cut.\n</think>42",
            False,
            Split("They want `</think>` cut.", "42", True),
            id="in inline code of the reasoning",
        ),
        pytest.param(
            "<think>\n```\n</think>\n```\nso</think>42",
            False,
            Split("```\n</think>\n```\nso", "42", True),
            id="in a code block of the reasoning",
        ),
        pytest.param(
            "<think>\n```python\nx\n</think>```python\ny\n```",
            False,
            Split("```python\nx", "```python\ny\n```", True),
            id="reasoning that leaves its code block open, before an answer in one",
        ),
        pytest.param(
            "```html\n<think>\n</think>\n```",
            False,
            Split(None, "```html\n<think>\n</think>\n```", True),
            id="an answer in code, without reasoning",
        ),
        pytest.param("<think>a\r\n</think>\r\n42\r\n", False, Split("a", "42\r\n", True), id="line ends of Windows"),
    ],
)
def test_reasoning_and_answer(text: str, opened: bool, expected: Split) -> None:
    assert split_reasoning(text, THINK, opened=opened) == expected


def test_channels_of_gpt_oss() -> None:
    said = "<|channel|>analysis<|message|>Six.<|end|><|start|>assistant<|channel|>final<|message|>42"
    assert split_reasoning(said, HARMONY, opened=False) == Split("Six.", "42", True)
    assert split_reasoning("<|channel|>final<|message|>42", HARMONY, opened=False) == Split("", "42", True)
    two = "<|channel|>commentary<|message|>Now.<|end|><|start|>assistant<|channel|>analysis<|message|>Six"
    assert split_reasoning(two, HARMONY, opened=False) == Split(two, "", False)


def test_without_markers_all_is_answer() -> None:
    assert split_reasoning("<think>a</think>b", None, opened=False) == Split(None, "<think>a</think>b", True)


def test_a_long_hostile_text_is_split_in_linear_time() -> None:
    text = "<think>`" + "```</think>\n``` <think> ` </think>" * 20_000
    split = split_reasoning(text, THINK, opened=True)
    assert split.ended
    assert split_reasoning("<think>" * 50_000, THINK, opened=False).ended is False


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|Assistant|><think>", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("What does <think> mean?<|im_end|>\n<|im_start|>assistant\n", False),
        ("", False),
    ],
)
def test_only_the_end_of_a_prompt_opens_reasoning(prompt: str, expected: bool) -> None:
    assert opens(prompt, THINK) is expected


def test_the_first_characters_may_not_yet_tell() -> None:
    said = {text: starts_reasoning(text, THINK) for text in ("", "\n<th", "\n<think>a", "<them>", "42")}
    assert said == {"": None, "\n<th": None, "\n<think>a": True, "<them>": False, "42": False}


def test_markers_from_added_tokens_from_a_template_from_a_setting_or_none(tmp_path: Path) -> None:
    tokenizer = byte_level()
    assert markers_of(tokenizer) is None
    tokenizer.add_tokens(["<think>"])
    assert markers_of(tokenizer) is None  # one alone shows nothing
    tokenizer.add_tokens(["</think>"])
    assert markers_of(tokenizer) == THINK
    tokenizer.chat_template = "{{ messages[0].content.split('</reasoning>')[-1] }}"
    assert markers_of(tokenizer) == ReasoningMarkers("<reasoning>", "</reasoning>")
    tokenizer.chat_template = {"default": "{{ messages }}", "think": "[THINK][/THINK]"}
    assert markers_of(tokenizer) == ReasoningMarkers("[THINK]", "[/THINK]")
    set_markers(tokenizer, ReasoningMarkers("((", "))"))
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    assert markers_of(load_tokenizer(tmp_path)) == ReasoningMarkers("((", "))")


@pytest.mark.parametrize("value", ["<think>", ["<think>"], ["<think>", ""], ["a", "b", "c", "d"], [1, 2], {"a": "b"}])
def test_a_setting_that_is_no_pair_is_an_error_in_a_line(value: Any) -> None:
    tokenizer = byte_level()
    tokenizer.init_kwargs["reasoning_markers"] = value
    with pytest.raises(InputError, match=r"`reasoning_markers` of tokenizer_config\.json is .*; fix: give two texts"):
        markers_of(tokenizer)


def test_special_tokens_are_markers_too() -> None:
    tokenizer = byte_level()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>"]})
    assert markers_of(tokenizer) == HARMONY


def of_template(name: str) -> Any:
    tokenizer = byte_level()
    tokenizer.chat_template = (TEMPLATES / name).read_text(encoding="utf-8")
    return markers_of(tokenizer)


@pytest.mark.real
@pytest.mark.skipif(not TEMPLATES.is_dir(), reason="the chat templates are not here")
def test_markers_of_every_real_template() -> None:
    found: dict[str, set[str]] = {}
    for path in sorted(TEMPLATES.glob("*/*.jinja")):
        if (markers := of_template(f"{path.parent.name}/{path.name}")) is not None:
            found.setdefault(markers.closing, set()).add(f"{path.parent.name}/{path.stem}")
    assert {closing: len(names) for closing, names in found.items()} == {
        "</think>": 21,
        "</seed:think>": 1,
        "<|END_THINKING|>": 1,
        "<channel|>": 1,
        "<|channel|>final<|message|>": 4,
    }
    assert {"trl/qwen3", "trl/deepseekv3", "onnxruntime-extensions/smollm3", "axolotl/exaone4"} <= found["</think>"]


@pytest.mark.real
@pytest.mark.skipif(not TEMPLATES.is_dir(), reason="the chat templates are not here")
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("llama.cpp/Qwen-QwQ-32B.jinja", {}, True),
        ("trl/qwen3.jinja", {}, False),
        ("trl/qwen3.jinja", {"enable_thinking": False}, False),
        ("trl/qwen3_5_think.jinja", {}, True),
        ("trl/nemotron_3_nano.jinja", {}, True),
        ("trl/nemotron_3_nano.jinja", {"enable_thinking": False}, False),
        ("llama.cpp/deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", {}, True),
    ],
)
def test_a_real_generation_prompt_opens_reasoning_or_not(name: str, arguments: dict[str, Any], expected: bool) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = (TEMPLATES / name).read_text(encoding="utf-8")
    messages = [{"role": "user", "content": "What does <think> mean?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **arguments)
    markers = markers_of(tokenizer)
    assert markers is not None
    assert opens(prompt, markers) is expected


@pytest.mark.real
@pytest.mark.skipif(not TOKENIZERS.is_dir(), reason="the tokenizers are not here")
@pytest.mark.parametrize(
    ("name", "expected"), [("qwen3", THINK), ("minimind", THINK), ("qwen2.5", None), ("gpt2", None)]
)
def test_markers_of_real_tokenizers(name: str, expected: ReasoningMarkers | None) -> None:
    assert markers_of(load_tokenizer(TOKENIZERS / name)) == expected

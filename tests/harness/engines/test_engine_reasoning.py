"""Reasoning through the engines: markers as text, as added and as special tokens, and stop strings within reasoning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from harness.engines import create_engine
from harness.engines._decoding import decode_completion
from harness.engines._reasoning import AnswerEnd, CompletionReader
from harness.engines._types import Completion, Sampling
from helpers.reasoning_models import EXPECTED, KINDS, NEW_TOKENS, SAID, STOP
from helpers.tiny_tokenizers import byte_level


@pytest.fixture(scope="module")
def answered(thinkers: dict[str, Path]) -> dict[str, list[Completion]]:
    """What the transformers engine makes of the models' prompts."""
    engines = {kind: create_engine("transformers", folder) for kind, folder in thinkers.items()}
    return {kind: engine.complete(list(SAID), Sampling(NEW_TOKENS, stop=STOP)) for kind, engine in engines.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_without_its_reasoning_that_no_stop_string_has_cut(
    kind: str, answered: dict[str, list[Completion]]
) -> None:
    for completion, (reasoning, answer, ended, finish) in zip(answered[kind], EXPECTED, strict=True):
        assert (completion.reasoning or "").startswith(reasoning or "")
        assert (completion.reasoning is None) == (reasoning is None)
        assert completion.text.startswith(answer)
        assert (completion.reasoning_ended, completion.finish_reason) == (ended, finish)
    stopped = [completion.text for completion in answered[kind][:3]]
    assert stopped == [answer for _, answer, *_ in EXPECTED[:3]]
    assert answered[kind][3].text == ""


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_reasoning_and_answer(
    kind: str, answered: dict[str, list[Completion]], thinkers: dict[str, Path]
) -> None:
    reader = CompletionReader(create_engine("transformers", thinkers[kind]).tokenizer)
    for completion in answered[kind]:
        before = reader.decode(completion.ids[: completion.reasoning_tokens])
        if completion.reasoning is None:
            assert completion.reasoning_tokens == 0
        elif completion.reasoning_ended:
            assert before.endswith("</think>")
            assert "</think>" not in reader.decode(completion.ids[: completion.reasoning_tokens - 1])
        else:
            assert completion.reasoning_tokens == len(completion.ids) == NEW_TOKENS


@pytest.mark.slow
def test_vllm_gives_the_same_parts_at_the_same_tokens(
    answered: dict[str, list[Completion]], vllm_reasoning: Any
) -> None:
    for kind in KINDS:
        theirs = vllm_reasoning[kind]["free"]
        assert theirs["completions"] == [asdict(completion) for completion in answered[kind]]
        assert theirs["finished"] == len(SAID)


def test_tokens_saved_by_a_stop_string_after_reasoning(
    thinkers: dict[str, Path], answered: dict[str, list[Completion]]
) -> None:
    free = create_engine("transformers", thinkers["special"]).complete(list(SAID), Sampling(NEW_TOKENS))
    for before, after in zip(free[:3], answered["special"][:3], strict=True):
        assert before.text.startswith(after.text)
        assert len(after.ids) < len(before.ids)
        assert before.ids[: len(after.ids)] == after.ids
        assert before.reasoning == after.reasoning


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def channels() -> Any:
    """A tokenizer with gpt-oss's special tokens."""
    tokenizer = byte_level()
    special = ["<|start|>", "<|message|>", "<|channel|>", "<|return|>"]  # <|end|> is its own
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    return tokenizer


def test_channels_of_special_tokens(channels: Any) -> None:
    reader, prompt = CompletionReader(channels), ids_of(channels, "<|start|>user<|message|>Hi<|end|><|start|>assistant")
    said = "<|channel|>analysis<|message|>Six.<|end|><|start|>assistant<|channel|>final<|message|>"
    read = reader.read(prompt, ids_of(channels, f"{said}It is 42.<|return|>"), [])
    assert (read.reasoning, read.answer, read.reasoning_ended) == ("Six.", "It is 42.", True)
    assert read.reasoning_tokens == len(ids_of(channels, said))
    assert not reader.read(prompt, ids_of(channels, "<|channel|>analysis<|message|>Six"), []).reasoning_ended


def test_a_completion_without_reasoning_reads_as_ever(channels: Any, byte_level: Any, sentencepiece: Any) -> None:
    for tokenizer in (channels, byte_level, sentencepiece):
        prompt, completion = ids_of(tokenizer, "def f(x):\n"), ids_of(tokenizer, "    return x, <b>\n\nQ")
        completion.append(tokenizer.eos_token_id)
        text = decode_completion(tokenizer, prompt, completion)
        assert CompletionReader(tokenizer).read(prompt, completion, []).answer == text
        cut = CompletionReader(tokenizer).read(prompt, completion, ["\n\n"])
        assert (cut.answer, cut.stopped, cut.reasoning) == (text.partition("\n\n")[0], True, None)


def first_end(end: AnswerEnd, ids: list[int]) -> int | None:
    """After how many ids the answer has ended, asked token by token."""
    for n in range(1, len(ids) + 1):
        if end.reached(ids[:n][-end.window :], lambda n=n: ids[:n]):  # type: ignore[misc]
            return n
    return None


@pytest.mark.parametrize(
    ("said", "stop", "kept"),
    [
        ("<think>a\n\nb</think>\n\n4\n\n5", "\n\n", "<think>a\n\nb</think>\n\n4\n\n"),
        ("<think>a\n\nb", "\n\n", None),
        ("\n\n4\n5", "\n", "\n\n4"),  # one token late: two line ends may stand before an opening marker
        ("<the dog\n\n5", "\n\n", "<the dog\n\n"),
        ("dog </think> fox", "think", "dog </think"),  # nothing was opened: an answer as any other
        ("\n" * 200 + "fox", "\n", "\n" * 65),
    ],
    ids=["after", "within", "before", "like a marker", "no reasoning", "line ends"],
)
def test_where_an_answer_ends(said: str, stop: str, kept: str | None) -> None:
    tokenizer = byte_level_of_single_bytes()
    ids = ids_of(tokenizer, said)
    end = AnswerEnd(CompletionReader(tokenizer), ids_of(tokenizer, "Q:"), [stop])
    assert first_end(end, ids) == (None if kept is None else len(ids_of(tokenizer, kept)))


def byte_level_of_single_bytes() -> Any:
    tokenizer = byte_level(257)
    tokenizer.chat_template = "</think>"
    return tokenizer


@pytest.fixture
def opened_end() -> Callable[[str], AnswerEnd]:
    tokenizer = byte_level_of_single_bytes()
    reader = CompletionReader(tokenizer)
    return lambda prompt: AnswerEnd(reader, ids_of(tokenizer, prompt), ["\n\n"])


def test_a_prompt_that_opens_reasoning_is_seen(opened_end: Callable[[str], AnswerEnd]) -> None:
    ids = ids_of(byte_level_of_single_bytes(), "a\n\nb</think>4\n\n5")
    assert first_end(opened_end("Q<think>\n"), ids) == len("a\n\nb</think>4\n\n")
    assert first_end(opened_end("Q<think>\n\n</think>\n\n"), ids) == len("a\n\n")

"""Where limits of reasoning and answer end a completion, by its ids alone, and what is written to close reasoning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dskd.errors import InputError
from harness.engines._completion_cache import block_key
from harness.engines._limits import CompletionEnd, TokenLimits
from harness.engines._reasoning import AnswerEnd, CompletionReader
from harness.engines._types import GeneratedTokens, Sampling
from helpers.tiny_tokenizers import byte_level, sentencepiece

# Of [[1, 2]], four tokens and the seed 0, before there were limits of reasoning.
KEY = "b118210dbf8fc8fadb186d5ebb2e39b85cf277618a0b022a077bfbb681a9750b"


def limited(limit: int, answer: int, **more: Any) -> Sampling:
    return Sampling(limit + answer, max_reasoning_tokens=limit, **more)


def test_blocks_without_limits_keep_their_keys() -> None:
    assert block_key([[1, 2]], Sampling(4), [0]) == KEY
    others = [Sampling(4, max_reasoning_tokens=2), Sampling(4, max_reasoning_tokens=2, reasoning_end="close")]
    keys = [block_key([[1, 2]], each, [0]) for each in (*others, Sampling(4, after_reasoning=True))]
    assert len({KEY, *keys}) == 4


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module")
def reader() -> CompletionReader:
    """Of a tokenizer with a token for each byte, whose markers are text."""
    tokenizer = byte_level(257)
    tokenizer.chat_template = "</think>"
    return CompletionReader(tokenizer)


def ends_after(reader: CompletionReader, prompt: str, text: str, sampling: Sampling) -> int | None:
    """After how many bytes a completion ends, asked byte by byte."""
    tokenizer = reader.tokenizer
    before, ids = ids_of(tokenizer, prompt), ids_of(tokenizer, text)
    answer = AnswerEnd(reader, before, sampling.stop, after_reasoning=sampling.after_reasoning)
    limits = TokenLimits(reader, before, sampling) if sampling.max_reasoning_tokens else None
    end = CompletionEnd(answer, limits)
    for n in range(1, len(ids) + 1):
        if end.reached(ids[:n][-end.window :], lambda n=n: ids[:n]):  # type: ignore[misc]
            return n
    return None


BLOCK = "<think>abcd</think>"  # 19 bytes


@pytest.mark.parametrize(
    ("prompt", "text", "limit", "answer", "seen", "kept"),
    [
        ("Q:", f"{BLOCK}123456", 19, 3, 22, 22),
        ("Q:", f"{BLOCK}123456", 18, 3, 18, 18),
        ("Q:", f"{BLOCK}123456", 90, 3, 22, 22),
        ("Q:", f"{BLOCK}123456", 90, 50, None, 25),
        ("Q:", f"{BLOCK}123456", 3, 50, 7, 3),  # only the whole opening marker tells that it is reasoning
        ("Q:", "\n" * 5 + "123456", 90, 4, 6, 4),
        ("Q:", "\n" * 5, 90, 4, None, 4),
        ("Q:<think>", "abcd</think>123456", 12, 3, 15, 15),
        ("Q:<think>", "abcd</think>123456", 11, 3, 11, 11),
        ("Q:<think></think>", "123456", 11, 3, 3, 3),
        ("Q:", "12 </think> 345678", 5, 14, 14, 14),  # nothing was opened
        ("Q:", "<think>a `</think>` b</think>123456", 90, 4, 22, 22),  # the first closing marker, as for stop strings
    ],
)
def test_where_limits_end_a_completion(
    reader: CompletionReader, prompt: str, text: str, limit: int, answer: int, seen: int | None, kept: int
) -> None:
    sampling = limited(limit, answer)
    assert ends_after(reader, prompt, text, sampling) == seen
    # Decided afterwards, of all that was generated and of what was generated until then, it is the same.
    ids = ids_of(reader.tokenizer, text)
    limits = TokenLimits(reader, ids_of(reader.tokenizer, prompt), sampling)
    whole = limits.apply(GeneratedTokens(ids, ended=True), [0])
    assert whole == limits.apply(GeneratedTokens(ids[:seen], ended=True), [0])
    assert whole.ids == ids[:kept]
    assert whole.ended == (kept == len(ids))


PIECES = ("<think>", "</think>", "<th", "ink>", "a", "bc", "\n", "\n\n", "`", "```\n", "é", " ")


@settings(max_examples=200, deadline=None)
@given(
    opened=st.booleans(),
    pieces=st.lists(st.sampled_from(PIECES), max_size=14),
    limit=st.integers(1, 40),
    answer=st.integers(1, 12),
)
def test_token_by_token_and_afterwards_limits_are_the_same(
    reader: CompletionReader, opened: bool, pieces: list[str], limit: int, answer: int
) -> None:
    prompt, text, sampling = "Q:<think>\n" if opened else "Q:", "".join(pieces), limited(limit, answer)
    ids = ids_of(reader.tokenizer, text)
    limits = TokenLimits(reader, ids_of(reader.tokenizer, prompt), sampling)
    whole = limits.apply(GeneratedTokens(ids, ended=True), [0])
    seen = ends_after(reader, prompt, text, sampling)
    assert whole == limits.apply(GeneratedTokens(ids[:seen], ended=True), [0])
    assert whole.ids == ids[: len(whole.ids)]
    assert len(whole.ids) <= (limit if whole.reasoning_cut else limit + answer)
    read = reader.read(ids_of(reader.tokenizer, prompt), whole.ids, (), reasons=whole.reasoning_cut)
    assert not (whole.reasoning_cut and read.reasoning_ended)


def test_all_ids_are_looked_at_a_few_times_for_each_completion(reader: CompletionReader) -> None:
    looks = 0
    tokenizer = reader.tokenizer
    ids = ids_of(tokenizer, "<think>" + "a" * 3000 + "</think>" + "b" * 600)
    end = CompletionEnd(AnswerEnd(reader, [], ()), TokenLimits(reader, [], limited(4000, 500)))

    def whole(n: int) -> list[int]:
        nonlocal looks
        looks += 1
        return ids[:n]

    for n in range(1, len(ids) + 1):
        if end.reached(ids[:n][-end.window :], lambda n=n: whole(n)):  # type: ignore[misc]
            break
    assert n == 7 + 3000 + 8 + 500
    assert looks < 20


@pytest.mark.parametrize(
    ("text", "expected"), [("\n\n4\n\n5", 5), ("4\n\n", 3), ("<think>\n\n", 9)], ids=["before", "after", "once more"]
)
def test_stop_strings_after_reasoning_that_was_closed(reader: CompletionReader, text: str, expected: int) -> None:
    sampling = Sampling(50, stop=("\n\n",), after_reasoning=True)
    assert ends_after(reader, "Q:<think>abc\n</think>\n\n", text, sampling) == expected


CHANNELS = "<|channel|>final<|message|>"


def with_template(tokenizer: Any, template: str) -> CompletionReader:
    if template == CHANNELS:
        special = ["<|start|>", "<|message|>", "<|channel|>", "<|end|>"]
        tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.chat_template = template
    return CompletionReader(tokenizer)


@pytest.mark.parametrize(
    ("make", "template", "reasoning", "closing"),
    [
        *((make, "</think>", "Six", "\n</think>\n\n") for make in (byte_level, sentencepiece)),
        *((make, "</think>", "Six\n", "</think>\n\n") for make in (byte_level, sentencepiece)),
        (byte_level, "</think>", "Six\n\n", "</think>\n\n"),
        (sentencepiece, "{{ '[/THINK]' }}", "Six", "\n[/THINK]\n\n"),
        (byte_level, CHANNELS, "Six\n", f"<|end|><|start|>assistant{CHANNELS}"),
    ],
)
def test_what_closes_reasoning(make: Callable[[], Any], template: str, reasoning: str, closing: str) -> None:
    reader = with_template(make(), template)
    before = ids_of(reader.tokenizer, f"a{reasoning}")
    assert reader.text(before, reader.closing(before)) == closing
    most = limited(30, 5)
    assert reader.longest(most) == 35
    assert reader.longest(replace(most, reasoning_end="close")) >= 35 + len(reader.closing(before))


def test_a_tokenizer_that_spells_the_marker_otherwise_closes_nothing() -> None:
    reader = with_template(sentencepiece(), CHANNELS)  # a space before each word
    with pytest.raises(InputError, match="reasoning cannot be closed; fix: reasoning_end: cut"):
        reader.closing([5, 6])


def test_line_ends_are_those_that_the_template_writes() -> None:
    template = (
        "{% for m in messages %}{{ m.role }}: {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>\n{% endif %}"
        "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    reader = with_template(byte_level(), template)
    assert reader.decode(reader.closing([40, 41])) == "</think>\n"

"""Where a text is cut, the tokens of its parts are those of the whole; tokenizers of which that is not known are not cut for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dskd.tokenization.word_cuts import WordCuts, _keeps_to_words
from helpers.tiny_tokenizers import byte_level, sentencepiece

PIECES = [
    *["the", "The", " quick", " fox", "ab cd"] * 4, " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u200b", "'s", "'", "don't", "12", " 3.5", "_", "##",
    "é", "e\u0301", "ﬁ", "İ", "東京", "😀", "नमस्ते", "مرحبا", "▁", "Ġ", "\x00", "<s>", "</s>", "<|endoftext|>", "<|im_end|>", "<|end|>", "<unk>",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=16).map("".join)


def _changed(tokenizer: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    change(state)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), eos_token="<|end|>")


def _check(tokenizer: Any, cuts: WordCuts, text: str) -> bool:
    place = cuts.last(text)
    if place is None:
        return False
    encoding = tokenizer(text)
    last = encoding.char_to_token(place - 1)
    rest = tokenizer(cuts.rest(text, place), add_special_tokens=False)["input_ids"]
    assert encoding["input_ids"][: last + 1] + rest == encoding["input_ids"]
    # What follows changes nothing before the place either.
    for following in (" is", "\n", "n't", " \u0301", "</s>"):
        other = tokenizer(text + following)
        assert other["input_ids"][: last + 1] == encoding["input_ids"][: last + 1]
        assert other.char_to_token(place - 1) == last
    return True


TINY, PIECEWISE = byte_level(), sentencepiece()
TINY_CUTS, PIECEWISE_CUTS = WordCuts.of(TINY), WordCuts.of(PIECEWISE)


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_the_tokens_of_the_parts_are_those_of_the_whole(text: str) -> None:
    for tokenizer, cuts in ((TINY, TINY_CUTS), (PIECEWISE, PIECEWISE_CUTS)):
        assert cuts is not None
        _check(tokenizer, cuts, text)


@pytest.mark.real
@pytest.mark.parametrize("name", ["gpt2", "mistral", "phi-3-mini", "qwen1.5-1.8b", "olmo2", "minimind"])
def test_so_are_they_for_real_tokenizers(real_data: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_data / "tokenizers" / name)
    cuts = WordCuts.of(tokenizer)
    assert cuts is not None
    checked: list[bool] = []

    @settings(max_examples=200, deadline=None, database=None)
    @given(TEXTS)
    def check(text: str) -> None:
        checked.append(_check(tokenizer, cuts, text))

    check()
    assert sum(checked) > 50
    prompts = [row["question"] for row in map(json.loads, (real_data / "gsm8k" / "test.jsonl").open())][:200]
    assert all(_check(tokenizer, cuts, f"Question: {prompt}\nAnswer:") for prompt in prompts)


def test_a_text_is_cut_between_its_last_two_words_of_letters() -> None:
    assert TINY_CUTS is not None
    assert TINY_CUTS.last("the quick fox 12\nAnswer:") == len("the quick")
    assert TINY_CUTS.last("the 12, 13") is None
    assert TINY_CUTS.last("a b") is None  # a single letter may be where the tokenizer's own first space stands


def _without_splitter(state: dict[str, Any]) -> None:
    state["pre_tokenizer"]["use_regex"] = False


def _unknown_pattern(state: dict[str, Any]) -> None:
    looking_back = {"type": "Split", "pattern": {"Regex": r"(?<=x) \w+"}, "behavior": "Isolated", "invert": False}
    state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [looking_back, state["pre_tokenizer"]]}


def _stripping(state: dict[str, Any]) -> None:
    state["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}


def _reaching_over(state: dict[str, Any]) -> None:
    state["added_tokens"][0]["content"] = "the end"


def _dropping(state: dict[str, Any]) -> None:
    state["model"]["dropout"] = 0.1


def _adding_another_end(state: dict[str, Any]) -> None:
    piece = {"id": "Ġ", "ids": [state["model"]["vocab"]["Ġ"]], "tokens": ["Ġ"]}
    single = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "Ġ", "type_id": 0}}]
    state["post_processor"] = {
        "type": "TemplateProcessing", "single": single, "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}], "special_tokens": {"Ġ": piece}
    }  # fmt: skip


@pytest.mark.parametrize(
    "change", [_without_splitter, _unknown_pattern, _stripping, _reaching_over, _dropping, _adding_another_end]
)
def test_what_is_not_known_to_keep_words_apart_is_not_cut_for(change: Callable[[dict[str, Any]], None]) -> None:
    assert WordCuts.of(_changed(TINY, lambda state: None)) == TINY_CUTS
    assert WordCuts.of(_changed(TINY, change)) is None


def test_a_sentencepiece_model_that_may_fuse_unknown_letters_is_not_cut_for() -> None:
    def without_bytes(state: dict[str, Any]) -> None:
        state["model"]["byte_fallback"] = False

    def joining(state: dict[str, Any]) -> None:
        state["model"]["vocab"]["x▁y"] = len(state["model"]["vocab"])

    assert WordCuts.of(sentencepiece()) == WordCuts(1)
    for change in (without_bytes, joining):
        changed = _changed(sentencepiece(), change)
        changed.eos_token = "</s>"
        assert WordCuts.of(changed) is None


@pytest.mark.parametrize(
    ("pattern", "known"),
    [
        (r"\n| ?\p{L}+|\p{N}| +(?!\S)| ?[^\s\p{L}\p{N}]+|\s", True),
        (r"\n| ?\p{L}+|\p{N}| +(?!\S)| ?[^\s\p{L}\p{N}]+|\s|\w \w", False),
        (r"\n|\p{N}|\s", False),  # words are what is between the matches, spaces too
        (r" ?\p{L}+|\s+(?!\S)|(?<=a)b", False),
        (r" ?\p{L}+)|(\s", False),
        ("", False),
    ],
)
def test_a_pattern_is_known_by_its_alternatives(pattern: str, known: bool) -> None:
    def split(state: dict[str, Any]) -> None:
        own = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        state["pre_tokenizer"]["use_regex"] = False
        state["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [own, state["pre_tokenizer"]]}

    if pattern == r" ?\p{L}+)|(\s":  # which is no pattern at all for the tokenizers library
        assert not _keeps_to_words(pattern)
    else:
        assert (WordCuts.of(_changed(TINY, split)) is not None) == known

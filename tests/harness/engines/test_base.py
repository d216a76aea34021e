"""The rules that every engine shares: ids to text, stop strings, prompts that do not fit, and what a task may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dskd.data.preparation import encode_prompt
from dskd.errors import InputError
from harness.engines._decoding import INCOMPLETE, cut_at_stop, decode, decode_completion
from harness.engines.base import eos_token_ids, fit_prompt

TEXTS = [
    "def f(x):\n    return x + 1\n",
    "### Response:\nLe café coûte 3 €, naïve 🙂👍🏽 zoë\n\n你好，世界",
    "Question: how many?\nAnswer: 42 .  two  spaces",
    "\n\t\r\n end ",
]


@pytest.fixture(params=["byte_level", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["gpt2", "mistral", "qwen1.5-1.8b"])
def published_tokenizer(request: pytest.FixtureRequest, real_data: Path) -> Any:
    from dskd.modeling.loading import load_tokenizer

    folder = real_data / "tokenizers" / request.param
    if not folder.is_dir():
        pytest.skip(f"no tokenizer {request.param} in {real_data}")
    return load_tokenizer(folder)


def check_every_split(tokenizer: Any, text: str) -> None:
    ids = encode_prompt(tokenizer, text)
    start = 1 if ids and ids[0] == tokenizer.bos_token_id else 0
    for cut in range(start, len(ids) + 1):
        prompt = decode(tokenizer, ids[:cut])
        completion = decode_completion(tokenizer, ids[:cut], ids[cut:])
        # A character that the cut divides belongs to the completion.
        assert (prompt + completion == text) or (prompt.rstrip(INCOMPLETE) + completion == text), (
            cut,
            prompt,
            completion,
        )


@pytest.mark.parametrize("text", TEXTS)
def test_prompt_and_completion_make_the_text_wherever_it_is_cut(tokenizer: Any, text: str) -> None:
    check_every_split(tokenizer, text)


@pytest.mark.parametrize("text", TEXTS)
def test_prompt_and_completion_make_the_text_with_published_tokenizers(published_tokenizer: Any, text: str) -> None:
    check_every_split(published_tokenizer, text)


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_characters=INCOMPLETE, exclude_categories=["Cs"]), max_size=20))
def test_any_text_is_put_together_again(byte_level: Any, sentencepiece: Any, text: str) -> None:
    for tokenizer in (byte_level, sentencepiece):
        check_every_split(tokenizer, text)


def test_a_sentencepiece_continuation_keeps_its_first_space(sentencepiece: Any) -> None:
    prompt = encode_prompt(sentencepiece, "def f(x):")
    completion = encode_prompt(sentencepiece, "def f(x): return x")[len(prompt) :]
    assert sentencepiece.decode(completion) == "return x"  # the trap
    assert decode_completion(sentencepiece, prompt, completion) == " return x"


def test_the_indentation_after_a_newline_is_kept_whole(sentencepiece: Any) -> None:
    prompt = encode_prompt(sentencepiece, "def f(x):\n")
    completion = encode_prompt(sentencepiece, "def f(x):\n    return x + 1")[len(prompt) :]
    assert decode_completion(sentencepiece, prompt, completion) == "    return x + 1"


def test_half_a_character_after_a_newline_does_not_take_the_newline_along(sentencepiece: Any) -> None:
    prompt = encode_prompt(sentencepiece, "Answer:\n")
    half = sentencepiece.convert_tokens_to_ids("<0xE4>")
    rest = sentencepiece("the", add_special_tokens=False)["input_ids"]
    # Byte fallback decodes the run of newline and half a character as one, and none of it is a character then.
    assert not decode(sentencepiece, [*prompt, half, *rest]).startswith("Answer:\n")
    assert decode_completion(sentencepiece, prompt, [half, *rest]) == f"{INCOMPLETE} the"


def test_special_tokens_are_not_text(tokenizer: Any) -> None:
    prompt = encode_prompt(tokenizer, "the dog")
    completion = encode_prompt(tokenizer, "the dog jumps")[len(prompt) :]
    assert decode_completion(tokenizer, prompt, [*completion, tokenizer.eos_token_id]) == " jumps"


def test_spaces_before_punctuation_stay(tokenizer: Any) -> None:
    tokenizer.clean_up_tokenization_spaces = True
    prompt = encode_prompt(tokenizer, "the dog")
    completion = encode_prompt(tokenizer, "the dog , n't .")[len(prompt) :]
    assert decode_completion(tokenizer, prompt, completion) == " , n't ."


class _Shouting:
    """A tokenizer whose decoder changes all of a text by what comes last."""

    name_or_path = "shouting"

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join("a" if id_ == 1 else "b" for id_ in ids).swapcase() if len(ids) % 2 else "a" * len(ids)


def test_a_decoder_that_changes_the_prompt_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(InputError, match="shouting: the tokenizer's decoder changes text"):
        decode_completion(_Shouting(), [1], [2])


@pytest.mark.parametrize(
    ("text", "stop", "kept", "stopped"),
    [
        ("a\nclass B\ndef c", ["\ndef", "\nclass"], "a", True),  # the earliest in the text, not the first in the list
        ("abc", ["bc", "b"], "a", True),
        ("abc", ["d"], "abc", False),
        ("abc", [], "abc", False),
        ("abc", [""], "abc", False),
        ("stop", ["stop"], "", True),
    ],
)
def test_a_completion_ends_at_its_earliest_stop_string(text: str, stop: list[Any], kept: str, stopped: bool) -> None:
    assert cut_at_stop(text, stop) == (kept, stopped)


@pytest.mark.parametrize(
    ("ids", "room", "bos", "kept", "truncated"),
    [
        ([7, 1, 2, 3], 4, 7, [7, 1, 2, 3], False),
        ([7, 1, 2, 3], 3, 7, [7, 2, 3], True),  # the begin token and the end of the prompt
        ([1, 2, 3], 2, 7, [2, 3], True),
        ([1, 2, 3], 2, None, [2, 3], True),
        ([7, 1, 2], 1, 7, [2], True),
    ],
)
def test_the_end_of_a_prompt_that_does_not_fit_is_kept(
    ids: list[int], room: int, bos: int | None, kept: list[int], truncated: bool
) -> None:
    assert fit_prompt(ids, room, bos) == (kept, truncated)
    assert fit_prompt(ids, room, bos, "first") == (ids[:room], truncated)


def test_an_answer_ends_at_the_ids_of_tokenizer_and_generation_config(
    gpt2_folder: Path, byte_level: Any, tmp_path: Path
) -> None:
    assert eos_token_ids(gpt2_folder, byte_level) == [byte_level.eos_token_id]
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 9]}')
    assert eos_token_ids(tmp_path, byte_level) == sorted({5, 9, byte_level.eos_token_id})

"""Examples that are encoded together are encoded as each alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from dskd.data.batch_encoding import Side, encode_batch, prepared_rows
from dskd.data.encoding import Encoded, Example, encode_whole, prepared_row
from dskd.tokenization.prompt_templates import Instruction, Template, set_template
from helpers.tiny_tokenizers import byte_level, sentencepiece

PIECES = [
    *["the", " quick", "ab cd"] * 3, "The", " fox", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "'s", "'", "12", "3.5", "##", "é", "e\u0301", "ﬁ",
    "東京", "😀", "👩‍👩‍👧", "▁", "Ġ", "\x00", "<s>", "</s>", "<|endoftext|>", "<|end|>", "<unk>", "नमस्ते",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=15).map("".join)
EXAMPLES = st.lists(st.builds(Example, TEXTS, TEXTS.filter(bool)), max_size=8)
REAL = ["gpt2", "mistral", "phi-3-mini", "qwen1.5-1.8b", "minimind"]


def _same(one: Encoded | None, other: Encoded | None) -> bool:
    if one is None or other is None:
        return one is other
    spans = one.spans.tolist() == other.spans.tolist()
    return spans and (one.ids, one.prompt_length, one.special) == (other.ids, other.prompt_length, other.special)


def _check(sides: tuple[Side, Side], examples: list[Example]) -> None:
    encoded = []
    for side in sides:
        together = encode_batch(examples, side)
        alone = [encode_whole(side.tokenizer, side.vocabulary, example) for example in examples]
        assert [_same(*both) for both in zip(together, alone, strict=True)] == [True] * len(examples)
        encoded.append(together)
    kept = [pair for pair in zip(*encoded, strict=True) if None not in pair]
    for same in (False, True):
        rows = prepared_rows([one for one, _ in kept], [other for _, other in kept], same_vocabulary=same)
        for row, pair in zip(rows, kept, strict=True):
            lists = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in row.items()}
            assert lists == prepared_row(*pair, same_vocabulary=same)
            assert list(lists) == list(prepared_row(*pair, same_vocabulary=same))


TINY = {
    "byte-level": Side.of(byte_level()),
    "sentencepiece": Side.of(sentencepiece()),
    "normalising": Side.of(sentencepiece(normalise=True)),
}


@pytest.mark.parametrize(
    "names", [("byte-level", "sentencepiece"), ("normalising", "byte-level"), ("sentencepiece", "sentencepiece")]
)
def test_together_and_alone_are_the_same(names: tuple[str, str]) -> None:
    @settings(max_examples=80, deadline=None, database=None)
    @given(EXAMPLES)
    def check(examples: list[Example]) -> None:
        _check((TINY[names[0]], TINY[names[1]]), examples)

    check()


@pytest.fixture(scope="module")
def real_sides(real_data: Path) -> dict[str, Side]:
    return {name: Side.of(AutoTokenizer.from_pretrained(real_data / "tokenizers" / name)) for name in REAL}


@pytest.mark.real
@pytest.mark.parametrize("names", [(REAL[0], REAL[1]), (REAL[2], REAL[3]), (REAL[4], REAL[0])])
def test_so_they_are_for_real_tokenizers(real_data: Path, real_sides: dict[str, Side], names: tuple[str, str]) -> None:
    sides = real_sides[names[0]], real_sides[names[1]]

    @settings(max_examples=80, deadline=None, database=None)
    @given(EXAMPLES)
    def check(examples: list[Example]) -> None:
        _check(sides, examples)

    check()
    rows = [json.loads(line) for line in (real_data / "gsm8k" / "test.jsonl").open()][:300]
    _check(sides, [Example(f"Question: {row['question']}\nAnswer:", f" {row['answer']}") for row in rows])
    rows = [json.loads(line) for line in (real_data / "dskd_format" / "dolly" / "valid.jsonl").open()][:300]
    _check(sides, [Example(row["prompt"], row["output"]) for row in rows if row["output"]])


def _chat(name: str) -> Any:
    tokenizer = {"byte-level": byte_level, "sentencepiece": sentencepiece}[name]()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )
    set_template(tokenizer, Template(kind="chat"))
    return tokenizer


def test_instructions_in_a_chat_template_too() -> None:
    sides = Side.of(_chat("byte-level")), Side.of(_chat("sentencepiece"))
    texts = ["The quick brown fox", "", "東京 is\n12", "so it is</s>", "  left "]
    _check(sides, [Example(Instruction(asked, given), "A fox\n is" + asked) for asked in texts for given in texts])

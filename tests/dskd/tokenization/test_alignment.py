from __future__ import annotations

import gzip
import itertools
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dskd.tokenization.alignment import UNKNOWN, align, align_tokenizers, byte_groups, byte_spans
from dskd.tokenization.vocabulary import Vocabulary
from helpers import golden
from helpers.tiny_tokenizers import byte_level, sentencepiece

TOKENIZERS = {
    "byte-level": byte_level(),
    "sentencepiece": sentencepiece(),
    "normalising": sentencepiece(normalise=True),
}
VOCABULARIES = {name: Vocabulary.from_tokenizer(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def _spans(name: str, text: str) -> tuple[list[str], np.ndarray]:
    tokenizer = TOKENIZERS[name]
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = byte_spans(VOCABULARIES[name], encoding["input_ids"], text, encoding["offset_mapping"])
    return tokenizer.convert_ids_to_tokens(encoding["input_ids"]), spans


def _optimum(text: str, encodings: list[tuple[list[str], list[tuple[int, int]]]]) -> set[tuple[int, int]]:
    """Pairs on the very same bytes, found from the tokenizers' character offsets one token at a time.

    Tokens within one character have the same offsets; they take its bytes in turn, as many as their spelling has characters
    (byte-level) or one (a byte piece).
    """
    intervals: list[dict[tuple[int, int], int]] = []
    for spellings, offsets in encodings:
        found: dict[tuple[int, int], int] = {}
        position = 0
        # The space that SentencePiece puts before a text is none of its bytes.
        added = int(bool(spellings) and spellings[0] == "▁" and not text.startswith(" "))
        spellings, offsets = spellings[added:], offsets[added:]
        for k, (spelling, (first, last)) in enumerate(zip(spellings, offsets, strict=True)):
            following = offsets[k + 1][0] if k + 1 < len(offsets) else len(text)
            while last < following and unicodedata.combining(text[last]):
                last += 1  # an accent that a normaliser composed and left out of the offsets
            start, end = len(text[:first].encode()), len(text[:last].encode())
            shared_left = k > 0 and offsets[k - 1][1] > first
            shared_right = k + 1 < len(offsets) and offsets[k + 1][0] < last
            if shared_left:
                start = position
            if shared_left or shared_right:
                width = 1 if spelling.startswith("<0x") else len(spelling)
                end = min(end, start + width)
            position = end
            if end > start:
                found[start, end] = k + added
        intervals.append(found)
    return {(intervals[0][span], intervals[1][span]) for span in intervals[0].keys() & intervals[1].keys()}


def test_newlines_accents_other_scripts_and_emoji_pair_across_kinds_of_tokenizer() -> None:
    text = "The fox\nnaïve 東 😀 return"
    left, right = _spans("byte-level", text), _spans("sentencepiece", text)
    pairs = {(left[0][i], right[0][j]) for i, j in zip(*align(left[1], right[1]), strict=True)}
    # A newline is "Ċ" for one and "<0x0A>" for the other; the bytes of an emoji are single tokens of both.
    assert {("The", "▁The"), ("Ċ", "<0x0A>"), ("ð", "<0xF0>"), ("Ł", "<0x9F>")} <= pairs


def test_a_word_does_not_pair_with_the_same_word_and_its_space() -> None:
    left, right = _spans("byte-level", "a fox"), _spans("sentencepiece", "a fox")
    for i, j in zip(*align(left[1], right[1]), strict=True):
        assert left[0][i].startswith("Ġ") == (right[0][j].startswith("▁") and j > 0)


def test_an_added_first_space_covers_nothing() -> None:
    names, spans = _spans("sentencepiece", "\nx")
    assert names[0] == "▁"
    assert spans[0, 0] == spans[0, 1]
    assert 0 not in align(spans, spans)[0]


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("The fox is green. 42\n\t  éŁ東😀\u0301ﬁ#=()"), max_size=40))
def test_pairs_equal_the_optimum_and_cover_equal_bytes(text: str) -> None:
    for teacher, student in (
        ("byte-level", "sentencepiece"),
        ("sentencepiece", "byte-level"),
        ("byte-level", "byte-level"),
    ):
        encodings = []
        for name in (teacher, student):
            encoding = TOKENIZERS[name](text, add_special_tokens=False, return_offsets_mapping=True)
            encodings.append(
                (TOKENIZERS[name].convert_ids_to_tokens(encoding["input_ids"]), encoding["offset_mapping"])
            )
        spans = [_spans(name, text)[1] for name in (teacher, student)]
        pairs = set(zip(*(side.tolist() for side in align(*spans)), strict=True))
        assert pairs == _optimum(text, encodings)


def test_a_normalised_text_still_aligns_around_what_was_changed() -> None:
    text = "The e\u0301\n12"
    left, right = _spans("byte-level", text), _spans("normalising", text)
    pairs = {(left[0][i], right[0][j]) for i, j in zip(*align(left[1], right[1]), strict=True)}
    assert ("The", "▁The") in pairs
    assert ("Ċ", "<0x0A>") in pairs
    assert ("e", "é") not in pairs  # the composed character covers the accent too


def test_one_sample_cannot_shift_another() -> None:
    texts = ["The fox", "\ufb01\u0301\n", "is green"]
    whole = align_tokenizers(TOKENIZERS["byte-level"], TOKENIZERS["sentencepiece"], texts)
    for k, text in enumerate(texts):
        alone = align_tokenizers(TOKENIZERS["byte-level"], TOKENIZERS["sentencepiece"], [text])
        assert alone.pairs[0] == whole.pairs[k]


REAL = ["gpt2", "mistral", "qwen1.5-1.8b"]
MULTILINGUAL = [
    "Łukasz i Zoë jedzą żurek.\n\nÇa va? Où est-ce? Ñandú, größer, straße.",
    "東京の寿司は美味しいです。今日は天気がいい。\n我喜欢学习语言。",
    "안녕하세요 세계 😀 👩‍👩‍👧 🇩🇪\tПривет, мир! مرحبا بالعالم",
    "a\u0301e\u0300 ﬁne \u00a0 nbsp\u2003em <|endoftext|> </s> ▁ Ġ",
]


@pytest.mark.real
@pytest.mark.parametrize(
    ("teacher", "student"),
    [
        pytest.param(teacher, student, marks=[pytest.mark.slow] if teacher == student else [])
        for teacher in REAL
        for student in REAL
    ],
)
def test_real_tokenizers_reach_the_byte_boundary_optimum(real_data: Path, teacher: str, student: str) -> None:
    def lines(path: Path, key: str) -> list[str]:
        return [json.loads(line)[key] for line in path.read_text().splitlines()]

    with gzip.open(real_data / "humaneval" / "HumanEval.jsonl.gz", "rt") as file:
        code = [row["prompt"] + row["canonical_solution"] for row in map(json.loads, file)]
    prose = lines(real_data / "dskd_format" / "dolly" / "valid.jsonl", "output")
    tokenizers = [AutoTokenizer.from_pretrained(real_data / "tokenizers" / name) for name in (teacher, student)]
    for kind, texts in {"prose": prose, "code": code, "multilingual": MULTILINGUAL}.items():
        summary = align_tokenizers(*tokenizers, texts)
        found, optimum = 0, 0
        for text, pairs in zip(texts, summary.pairs, strict=True):
            encodings = []
            for tokenizer in tokenizers:
                encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
                encodings.append((tokenizer.convert_ids_to_tokens(encoding["input_ids"]), encoding["offset_mapping"]))
            best = _optimum(text, encodings)
            optimum += len(best)
            found += len(best & set(zip(*pairs, strict=True)))
        assert found >= 0.98 * optimum, f"{kind}: {found} of {optimum}"
        assert optimum > 0


def test_spans_in_any_order_are_paired_by_what_they_cover() -> None:
    teacher, student = align(np.array([[3, 5], [0, 3]]), np.array([[0, 3], [3, 5]]))
    assert (teacher.tolist(), student.tolist()) == ([1, 0], [0, 1])


def _groups_byte_by_byte(teacher_spans: np.ndarray, student_spans: np.ndarray) -> list[Any]:
    """The stretches between places where tokens of both sides end, in which both cover the very same bytes.

    Each a pair of lists of tokens, teacher's and student's. One byte of the text at a time.
    """
    covered: list[dict[int, int]] = []  # byte -> the token that covers it
    ending: list[dict[int, int]] = []  # place -> the token that ends there
    for spans in (teacher_spans, student_spans):
        covered.append({})
        ending.append({})
        for token, (start, end) in enumerate(spans.tolist()):
            for byte in range(start, end):
                covered[-1][byte] = token
            if end > start:
                ending[-1][end] = token
    groups = []
    begin = 0
    for place in range(1, 1 + max(0, *(int(spans.max(initial=0)) for spans in (teacher_spans, student_spans)))):
        if place in ending[0] and place in ending[1]:
            stretch = range(begin, place)
            if all((byte in covered[0]) == (byte in covered[1]) for byte in stretch):
                groups.append(
                    tuple(sorted({side[byte] for byte in stretch if byte in side}) for side in (covered[0], covered[1]))
                )
            begin = place
    return groups


def _as_lists(groups: tuple[np.ndarray, np.ndarray]) -> list[Any]:
    """The tokens of each group, by their numbers: a list of pairs of lists."""
    numbers = range(1 + max(int(side.max(initial=UNKNOWN)) for side in groups))
    return [tuple((side == number).nonzero()[0].tolist() for side in groups) for number in numbers]


GROUPED = st.text(alphabet=st.sampled_from("The fox is green. 42\n\t  éŁ東😀#=()"), max_size=40)


@settings(max_examples=150, deadline=None)
@given(GROUPED)
def test_groups_are_the_smallest_stretches_that_both_tokenizers_end(text: str) -> None:
    both = [_spans(name, text)[1] for name in ("byte-level", "sentencepiece")]
    for spans in itertools.product(both, repeat=2):
        groups = byte_groups(*spans)
        assert _as_lists(groups) == _groups_byte_by_byte(*spans)
        for side, of_side in zip(spans, groups, strict=True):
            # These tokenizers take every byte, so whatever covers bytes is in a group.
            assert ((of_side == UNKNOWN) == (side[:, 1] <= side[:, 0])).all()


@st.composite
def _spans_with_gaps(draw: Callable) -> np.ndarray | None:
    """Tokens in the order of a text of twelve bytes, some of which cover nothing, or have no known place."""
    cuts = sorted(draw(st.sets(st.integers(0, 12), max_size=12)))
    spans = [[start, end] for start, end in itertools.pairwise(cuts)]
    for k in range(len(spans)):
        spans[k] = draw(st.sampled_from([spans[k], spans[k], spans[k], [UNKNOWN, UNKNOWN], [spans[k][0], spans[k][0]]]))
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


@settings(max_examples=300, deadline=None)
@given(_spans_with_gaps(), _spans_with_gaps())
def test_tokens_without_a_place_are_in_no_group_and_spoil_only_their_own(
    teacher: np.ndarray, student: np.ndarray
) -> None:
    assert _as_lists(byte_groups(teacher, student)) == _groups_byte_by_byte(teacher, student)


def test_a_normalised_text_still_groups_around_what_was_changed() -> None:
    text = "The e\u0301\n12"
    spans = _spans("byte-level", text)[1], _spans("normalising", text)[1]
    tokens = [_spans(name, text)[0] for name in ("byte-level", "normalising")]
    groups = [
        tuple("".join(tokens[side][k] for k in members[side]) for side in (0, 1))
        for members in _as_lists(byte_groups(*spans))
    ]
    assert ("The", "▁The") in groups
    assert ("Ċ", "<0x0A>") in groups
    assert any(right.endswith("é") for _, right in groups)  # the composed character with the letter and its accent


def test_groups_of_nothing() -> None:
    none = np.zeros((0, 2), dtype=np.int64)
    some = np.array([[0, 2], [2, 3]])
    for spans in ((none, none), (some, none), (none, some)):
        assert [(side == UNKNOWN).all() for side in byte_groups(*spans)] == [True, True]


@pytest.mark.parametrize("case", golden.cases("gold_byte_alignment"), ids=lambda case: case["name"])
def test_groups_equal_those_of_the_gold_trainer(case: dict[str, Any]) -> None:
    """TRL at commit f2cd577, on texts with newlines, accents and emoji; there from offsets, here from the tokens' bytes."""
    spans = []
    for side in ("teacher", "student"):
        file = golden.SHARED / f"eta_{side}_tokenizer.json"
        vocabulary = Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_file=str(file)))
        spans.append(byte_spans(vocabulary, case[f"{side}_ids"], case["text"]))
        assert spans[-1].tolist() == case[f"{side}_byte_offsets"]
    expected = list(zip(case["teacher_groups"], case["student_groups"], strict=True))
    assert _as_lists(byte_groups(*spans)) == expected

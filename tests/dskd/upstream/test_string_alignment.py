"""The published alignment by spellings: on what the authors' code found, and where it differs from bytes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from dskd.tokenization.alignment import align_tokenizers
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from dskd.upstream.string_alignment import align_strings, published_student_ids, student_ids_of_strings
from helpers import golden

ENDS = "<|teacher_end|>", "<|student_end|>"


def _tokenizer(folder: Path, side: str) -> Any:
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / f"eta_{side}_tokenizer.json"))


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    if not golden.SHARED.is_dir():
        pytest.skip("no golden tokenizers beside the repository")
    return {side: _tokenizer(golden.SHARED, side) for side in ("teacher", "student")}


def _strings(tokenizer: Any, text: str, end: str) -> list[str]:
    return [*tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"]), end]


def _as_lists(pairs: tuple[np.ndarray, np.ndarray]) -> list[Any]:
    return [side.tolist() for side in pairs]


@pytest.mark.parametrize("case", golden.cases("dskd_v2_eta"), ids=lambda case: case["name"])
def test_pairs_are_those_of_the_published_aligner(case: dict[str, Any], tokenizers: dict[str, Any]) -> None:
    listed = json.loads((golden.SHARED / "golden.json").read_text())["cases"]  # with the texts, as tests/golden is not
    (whole,) = (one for one in listed if one["name"] == case["name"])
    values = golden.tensors(case)
    for k, (text, pairs) in enumerate(zip(whole["texts"], whole["alignment"], strict=True)):
        strings = [_strings(tokenizers[side], text, end) for side, end in zip(tokenizers, ENDS, strict=True)]
        found = _as_lists(align_strings(*strings, ends=ENDS))
        assert found == [pairs["teacher"], pairs["student"]] == values[f"pairs/{k}"].tolist()


@pytest.mark.parametrize("case", golden.cases("simple_ctkd_token_lists"), ids=lambda case: case["name"])
def test_pairs_of_written_token_lists(case: dict[str, Any]) -> None:
    found = align_strings(case["teacher_tokens"], case["student_tokens"], ends=ENDS)
    assert _as_lists(found) == [case["teacher_pairs"], case["student_pairs"]]


@pytest.mark.parametrize("case", golden.cases("simple_ctkd_alignment"), ids=lambda case: case["name"])
def test_pairs_of_texts_with_newlines_accents_and_emoji(
    case: dict[str, list[int] | str], tokenizers: dict[str, Any]
) -> None:
    strings = [tokenizers[side].convert_ids_to_tokens(case[f"{side}_ids"]) for side in ("teacher", "student")]
    assert _as_lists(align_strings(*strings, ends=ENDS)) == [case["teacher_pairs"], case["student_pairs"]]


def _slow(teacher: list[str], student: list[str]) -> list[list[int]]:
    """With accumulated strings, compared as they grow."""
    pairs, i, j, before, mine = [], 0, 0, "", ""
    while i < len(teacher) and j < len(student):
        if before == mine and teacher[i] == student[j]:
            pairs.append((i, j))
            step = True, True
        else:
            step = len(before) <= len(mine), len(before) >= len(mine)
        if step[0]:
            before += teacher[i]
            i += 1
        if step[1]:
            mine += student[j]
            j += 1
    return [[pair[side] for pair in pairs] for side in (0, 1)]


def test_lengths_say_what_accumulated_strings_say() -> None:
    """On random cuts of one text, of which one side now and then spells a letter in another way."""
    number = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        text = "".join(generator.choice(list("ab"), 60))
        sides = []
        for _ in range(2):
            cuts = [0, *np.sort(generator.choice(np.arange(1, 60), 35, replace=False)).tolist(), 60]
            sides.append([text[first:last] for first, last in pairwise(cuts)])
        if seed % 2:
            sides[1][25] = sides[1][25].replace("a", "c")
        found = align_strings(*sides)
        assert _as_lists(found) == _slow(*sides)
        number += len(found[0])
    assert number > 200


def test_a_different_spelling_of_one_byte_loses_the_rest_of_the_text() -> None:
    teacher, student = ["one", "Ċ", "two", "Ġthree"], ["one", "<0x0A>", "two", "▁three"]
    assert _as_lists(align_strings(teacher, student)) == [[0], [0]]
    assert _as_lists(align_strings(["▁a", "Ġb"], ["Ġa", "b"])) == [[0, 1], [0, 1]]


def test_nothing_aligns_with_nothing() -> None:
    for sides in (([], []), (["a"], []), ([], ["a"])):
        assert _as_lists(align_strings(*sides)) == [[], []]


@pytest.mark.parametrize("case", golden.cases("dskd_v2_eta"), ids=lambda case: case["name"])
def test_predictions_are_looked_up_by_their_spelling(case: dict[str, Any], tokenizers: dict[str, Any]) -> None:
    """On two byte-level vocabularies spelling says what bytes say."""
    teacher, student = (tokenizers[side].get_vocab() for side in ("teacher", "student"))
    found = student_ids_of_strings(teacher, student, roles=[(teacher[ENDS[0]], student[ENDS[1]])])
    assert torch.equal(torch.from_numpy(found), golden.tensors(case)["student_id_of"])


def test_unknown_spellings_become_the_unknown_token_or_are_dropped() -> None:
    teacher, student = {"a": 0, "Ġb": 1, "</s>": 2, "c": 4}, {"▁b": 7, "a": 8, "<end>": 9, "<unk>": 0}
    assert student_ids_of_strings(teacher, student, roles=[(2, 9)], unknown=0).tolist() == [8, 0, 9, -1, 0]
    assert student_ids_of_strings(teacher, student, roles=[(2, 3), (2, 9)], one_marker=True).tolist() == [
        8,
        7,
        9,
        -1,
        -1,
    ]


def test_on_plain_text_spellings_align_as_bytes_do(tokenizers: dict[str, Any]) -> None:
    text = "Plain words about a river."
    summary = align_tokenizers(tokenizers["teacher"], tokenizers["student"], [text])
    strings = [_strings(tokenizers[side], text, end) for side, end in zip(tokenizers, ENDS, strict=True)]
    found = _as_lists(align_strings(*strings, ends=ENDS))
    assert [side[:-1] for side in found] == [list(side) for side in summary.pairs[0]]
    assert [side[-1] for side in found] == [len(side) - 1 for side in strings]


def test_a_prediction_is_looked_up_by_spelling() -> None:
    """V2-10: what the student does not spell so becomes its unknown token, which is the end in GPT-2, or is dropped."""
    teacher = Vocabulary((b" a", b"b", b"c", None), frozenset({3}), {3: b"</s>"}, frozenset(), {"eos": 3})
    student = Vocabulary((b"b", b" a", None), frozenset({2}), {2: b"<end>"}, frozenset(), {"eos": 2})
    assert share_vocabulary(teacher, student).student_id_of.tolist() == [1, 0, -1, 2]
    tokenizers = [
        SimpleNamespace(get_vocab=spellings.copy, eos_token_id=end, bos_token_id=None, unk_token_id=unknown)
        for spellings, end, unknown in (
            ({"b": 0, "Ġa": 1, "<end>": 2}, 2, 2),
            ({"▁a": 0, "b": 1, "c": 2, "</s>": 3}, 3, None),
        )
    ]
    sizes = {"student_size": 3, "teacher_size": 4}
    assert published_student_ids(*tokenizers, "dskdv2", **sizes).tolist() == [2, 0, 2, 2]
    assert published_student_ids(*tokenizers, "kdflow", **sizes).tolist() == [1, 0, -1, 2]

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from dskd.data.collator import Collator
from dskd.data.preparation import Example, encode_example, encode_prompt, load_examples, prepare_dataset
from dskd.errors import InputError
from dskd.tokenization.vocabulary import Vocabulary
from helpers.tiny_tokenizers import byte_level, sentencepiece

TOKENIZERS = {"byte-level": byte_level(), "sentencepiece": sentencepiece()}
EXAMPLES = [
    Example("Question: How many apples?\nAnswer:", " 12 apples.\n#### 12"),
    Example("def add(first, second):\n", "    return first + second\n"),
    Example("### Response:\n", "\n\nŁódź 東京 😀"),
    Example("The quick", "ly brown fox"),  # the boundary falls into a word
    Example("", "The river is green."),
]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for name, tokenizer in TOKENIZERS.items():
        tokenizer.save_pretrained(tmp_path / name)
    return {name: tmp_path / name for name in TOKENIZERS}


def _write(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.response[:12].strip() or "empty")
def test_a_response_is_exactly_its_bytes_after_the_prompt_that_generation_uses(name: str, example: Example) -> None:
    tokenizer = TOKENIZERS[name]
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    prompt, response, spans = encode_example(tokenizer, vocabulary, example)
    assert prompt == encode_prompt(tokenizer, example.prompt)
    written = b"".join(vocabulary.token_bytes[k] for k in response)
    # Without a prompt, SentencePiece's added first space is part of the first token and no byte of the response.
    assert written.removeprefix(b" " if not example.prompt else b"") == example.response.encode()
    assert spans[-1, 1] == len(example.response.encode())
    assert spans[0, 0] == 0


def test_a_prompt_begins_as_the_tokenizer_begins_and_never_ends() -> None:
    assert encode_prompt(TOKENIZERS["sentencepiece"], "The")[0] == TOKENIZERS["sentencepiece"].bos_token_id
    assert TOKENIZERS["sentencepiece"].eos_token_id not in encode_prompt(TOKENIZERS["sentencepiece"], "The")
    assert encode_prompt(TOKENIZERS["byte-level"], "") == []


def test_preparation_counts_every_example_and_cuts_none(tmp_path: Path, folders: dict[str, Path]) -> None:
    rows = [{"prompt": e.prompt, "output": e.response} for e in EXAMPLES]
    rows.append({"prompt": "The", "output": " fox" * 60})
    report = prepare_dataset(
        _write(tmp_path / "train.jsonl", rows),
        tmp_path / "out",
        student=folders["sentencepiece"],
        teacher=folders["byte-level"],
        max_length=60,
    )
    assert report.examples == 6
    assert report.kept == 5
    assert report.too_long_student == 1
    assert report.too_long_teacher == 1
    assert report.same_vocabulary is False
    kept = datasets.load_from_disk(str(tmp_path / "out"))
    for row, example in zip(kept, EXAMPLES, strict=True):
        for side, tokenizer in (("student", TOKENIZERS["sentencepiece"]), ("teacher", TOKENIZERS["byte-level"])):
            assert row[f"{side}_ids"][-1] == tokenizer.eos_token_id
            assert tokenizer.decode(row[f"{side}_ids"], skip_special_tokens=True) == example.prompt + example.response
        # The ends of sequence are a pair, and they come last.
        assert row["student_pairs"][-1] == len(row["student_ids"]) - row["student_prompt_length"] - 1
        assert row["teacher_pairs"][-1] == len(row["teacher_ids"]) - row["teacher_prompt_length"] - 1


LAYOUTS = {
    "padding on the right": Collator(),
    "padding on the left": Collator("left"),
    "packed": Collator(packing=True),
    "packed into one row": Collator(packing=True, row_length=10_000),
}


@pytest.fixture
def both_sides(tmp_path: Path, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """The examples for a SentencePiece student and a byte-level teacher, as rows of a prepared dataset."""
    rows = [{"prompt": e.prompt, "output": e.response} for e in EXAMPLES]
    prepare_dataset(
        _write(tmp_path / "train.jsonl", rows),
        tmp_path / "out",
        student=folders["sentencepiece"],
        teacher=folders["byte-level"],
    )
    return list(datasets.load_from_disk(str(tmp_path / "out")))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_point_at_tokens_with_the_same_bytes_whatever_the_layout(
    both_sides: list[dict[str, Any]], layout: str
) -> None:
    vocabularies = {
        side: Vocabulary.from_tokenizer(TOKENIZERS[name])
        for side, name in (("student", "sentencepiece"), ("teacher", "byte-level"))
    }
    batch = LAYOUTS[layout](both_sides)
    left = batch.teacher.labels[batch.teacher.pairs].tolist()
    right = batch.student.labels[batch.student.pairs].tolist()
    ends = (TOKENIZERS["byte-level"].eos_token_id, TOKENIZERS["sentencepiece"].eos_token_id)
    for t, s in zip(left, right, strict=True):
        assert (
            (t, s) == ends
            or vocabularies["teacher"].token_bytes[t] == vocabularies["student"].token_bytes[s].lstrip(b" ")
            or (vocabularies["teacher"].token_bytes[t] == vocabularies["student"].token_bytes[s])
        )
    assert (left.count(ends[0]), right.count(ends[1])) == (5, 5)
    plain = Collator()(both_sides)
    for side in vocabularies:
        for key in ("pairs", "labels"):
            np.testing.assert_array_equal(getattr(getattr(batch, side), key), getattr(getattr(plain, side), key))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_labelled_is_followed_by_its_label_and_nothing_else_is_labelled(
    both_sides: list[dict[str, Any]], layout: str
) -> None:
    batch = LAYOUTS[layout](both_sides)
    for side in ("student", "teacher"):
        ids, labelled, labels = (getattr(getattr(batch, side), key) for key in ("input_ids", "labelled", "labels"))
        assert ids.flatten()[labelled + 1].tolist() == labels.tolist()
        expected = [token for row in both_sides for token in row[f"{side}_ids"][row[f"{side}_prompt_length"] :]]
        assert labels.tolist() == expected
        assert len(set(labelled.tolist())) == len(labelled)
        # A label stands in its example: positions of a token and the next follow one another.
        positions = getattr(batch, side).position_ids.flatten()
        assert (positions[labelled + 1] == positions[labelled] + 1).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_example_stands_whole_and_once_and_counts_from_zero(
    both_sides: list[dict[str, Any]], layout: str
) -> None:
    batch = LAYOUTS[layout](both_sides)
    for side in ("student", "teacher"):
        ids, positions = getattr(batch, side).input_ids, getattr(batch, side).position_ids
        assert ids.dtype == positions.dtype == torch.int64
        real = getattr(batch, side).attention_mask
        found = []
        for k in range(len(ids)):
            starts = [column for column in range(ids.shape[1]) if positions[k, column] == 0]
            if real is not None:
                starts = starts if real[k, 0] else starts[-1:]
                starts = [column for column in starts if real[k, column]]
            for first, last in zip(starts, [*starts[1:], ids.shape[1]], strict=True):
                last = last if real is None else int(real[k].nonzero().max()) + 1
                assert positions[k, first:last].tolist() == list(range(last - first))
                found.append(ids[k, first:last].tolist())
        if real is None:  # what is left at the end of a row is zeros, an example of its own
            found = [example for example in found if any(example)]
        assert sorted(found) == sorted(row[f"{side}_ids"] for row in both_sides)
        assert getattr(batch, side).size == sum(len(row[f"{side}_ids"]) for row in both_sides)


def _rows(lengths: list[int]) -> list[dict[str, Any]]:
    return [{"student_ids": [7] * length, "student_prompt_length": 1} for length in lengths]


def test_packed_rows_are_nearly_equally_long_and_no_longer_than_asked() -> None:
    lengths = [int(length) for length in np.random.default_rng(0).lognormal(5, 0.7, 64).clip(10, 512)]
    batch = Collator(packing=True, row_length=2048)(_rows(lengths))
    places = batch.student.input_ids.numel()
    assert 0.8 * 2048 < batch.student.input_ids.shape[1] < 1.3 * 2048
    assert places - sum(lengths) <= 0.02 * places
    # Without a length the longest example sets it.
    short = Collator(packing=True)(_rows(lengths)).student.input_ids
    assert short.shape[1] < 1.3 * max(lengths)
    assert short.numel() - sum(lengths) <= 0.05 * short.numel()


@pytest.mark.parametrize("lengths", [[5], [5, 5], [2, 2, 2, 50], [50, 49, 48], [3] * 40])
def test_no_example_is_split_however_little_a_row_may_hold(lengths: list[int]) -> None:
    batch = Collator(packing=True, row_length=1)(_rows(lengths))
    assert batch.student.input_ids.shape == (len(lengths), max(lengths))


def test_the_numbers_of_cached_teacher_rows_come_along(both_sides: list[dict[str, Any]]) -> None:
    assert Collator()(both_sides).teacher.cache_rows is None
    rows = [row | {"teacher_row": 9 - k} for k, row in enumerate(both_sides)]
    assert Collator(packing=True)(rows).teacher.cache_rows.tolist() == [9, 8, 7, 6, 5]


def test_labels_are_the_next_tokens_and_positions_skip_padding(tmp_path: Path, folders: dict[str, Path]) -> None:
    rows = [{"prompt": e.prompt, "output": e.response} for e in EXAMPLES[:2]]
    prepare_dataset(_write(tmp_path / "train.jsonl", rows), tmp_path / "out", student=folders["byte-level"])
    data = list(datasets.load_from_disk(str(tmp_path / "out")))
    batch = Collator("left")(data)
    assert batch.teacher is None
    width = batch.student.input_ids.shape[1]
    expected = []
    for k, row in enumerate(data):
        mask = batch.student.attention_mask[k].bool()
        ids = batch.student.input_ids[k][mask]
        assert ids.tolist() == row["student_ids"]
        assert batch.student.position_ids[k][mask].tolist() == list(range(len(ids)))
        start = row["student_prompt_length"]
        expected += [(k + 1) * width - len(ids) + t for t in range(start - 1, len(ids) - 1)]
    assert batch.student.labelled.tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ('{"prompt": "a", "output": "b"}\n{"prompt": \n', r":2: not JSON"),
        ('{"prompt": "a"}\n', r":1: prompt and output must be strings"),
        ('\n{"prompt": "a", "output": ""}\n', r":2: output is empty"),
        ('{"prompt": "a", "output": "\\ud83d"}\n', r":1: half of a surrogate pair"),
        ("[1]\n", r":1: not a JSON object"),
    ],
)
def test_bad_files_are_one_line_errors_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_examples(path)
    assert str(path) in str(error.value)
    assert "fix:" in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_is_written_where_no_example_fits(tmp_path: Path, folders: dict[str, Path]) -> None:
    path = _write(tmp_path / "train.jsonl", [{"prompt": "The", "output": " fox" * 60}])
    with pytest.raises(InputError, match=r"1 too long student.*raise max_length"):
        prepare_dataset(path, tmp_path / "out", student=folders["byte-level"], max_length=20)
    assert not (tmp_path / "out").exists()


def test_a_response_that_spells_a_special_token_is_left_out_and_counted(
    tmp_path: Path, folders: dict[str, Path]
) -> None:
    rows = [{"prompt": "The", "output": " fox"}, {"prompt": "The", "output": " fox </s> is"}]
    path = _write(tmp_path / "train.jsonl", rows)
    report = prepare_dataset(path, tmp_path / "out", student=folders["sentencepiece"])
    assert (report.kept, report.special_tokens) == (1, 1)
    # For the other tokenizer these are letters like any others.
    assert prepare_dataset(path, tmp_path / "other", student=folders["byte-level"]).kept == 2


def test_a_prompt_that_writes_its_begin_token_has_one(tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    assert encode_prompt(tokenizer, "<s>The")[:2].count(tokenizer.bos_token_id) == 1


def test_with_one_vocabulary_every_labelled_token_is_its_own_partner(tmp_path: Path) -> None:
    # The normaliser composes the accent, so its token has no bytes of the text to itself.
    tokenizer = sentencepiece(normalise=True)
    tokenizer.save_pretrained(tmp_path / "model")
    path = _write(tmp_path / "train.jsonl", [{"prompt": "", "output": "\ne\u0301e\u0301 fox"}])
    report = prepare_dataset(path, tmp_path / "out", student=tmp_path / "model", teacher=tmp_path / "model")
    assert report.same_vocabulary
    (row,) = datasets.load_from_disk(str(tmp_path / "out"))
    labels = len(row["student_ids"]) - row["student_prompt_length"]
    assert row["student_pairs"] == row["teacher_pairs"] == list(range(labels))

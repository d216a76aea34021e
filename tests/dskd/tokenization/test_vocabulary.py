from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from dskd.errors import InputError
from dskd.tokenization.vocabulary import Vocabulary, share_vocabulary
from helpers.tiny_tokenizers import byte_level, sentencepiece

TEXT = "Łódź 東京 😀\n\n  def add(x):\treturn x  # naïve\n"


@pytest.mark.parametrize("tokenizer", [byte_level(), sentencepiece()], ids=["byte-level", "sentencepiece"])
def test_tokens_as_bytes_add_up_to_the_text(tokenizer: Any) -> None:
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert b"".join(vocabulary.token_bytes[k] for k in ids).decode().removeprefix(" ") == TEXT


def test_a_byte_has_one_canonical_token_and_a_piece_comes_before_a_byte_piece() -> None:
    tokenizer = sentencepiece()
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    assert vocabulary.id_of[b"a"] == tokenizer.convert_tokens_to_ids("a")
    assert vocabulary.tokens[tokenizer.convert_tokens_to_ids("<0x61>")] == b"a"
    assert vocabulary.id_of[b"\n"] == tokenizer.convert_tokens_to_ids("<0x0A>")


def test_shared_tokens_have_the_same_bytes_and_each_student_token_one_partner() -> None:
    teacher, student = Vocabulary.from_tokenizer(byte_level()), Vocabulary.from_tokenizer(sentencepiece())
    shared = share_vocabulary(teacher, student)
    ends = (teacher.special_roles["eos"], student.special_roles["eos"])
    for t, s in zip(shared.teacher_ids.tolist(), shared.student_ids.tolist(), strict=True):
        assert (t, s) == ends or teacher.tokens[t] == student.tokens[s]
    assert len(set(shared.student_ids.tolist())) == len(set(shared.teacher_ids.tolist())) == len(shared)
    assert shared.student_id_of[teacher.id_of[b"\n"]] == student.id_of[b"\n"]
    assert not shared.same


def test_the_end_of_sequence_is_paired_by_its_role_also_where_begin_and_end_are_one_token() -> None:
    one, two = Vocabulary.from_tokenizer(byte_level()), Vocabulary.from_tokenizer(sentencepiece())
    both = Vocabulary(one.tokens, one.special_ids, one.special_token_text, one.byte_pieces, {"eos": 0, "bos": 0})
    for teacher, student in ((both, two), (two, both)):
        shared = share_vocabulary(teacher, student)
        pairs = dict(zip(shared.teacher_ids.tolist(), shared.student_ids.tolist(), strict=True))
        assert pairs[teacher.special_roles["eos"]] == student.special_roles["eos"]
        assert len(set(pairs.values())) == len(pairs)
        assert shared.student_id_of[teacher.special_roles["eos"]] == student.special_roles["eos"]


def test_one_vocabulary_is_recognised_and_maps_every_token_to_itself() -> None:
    vocabulary = Vocabulary.from_tokenizer(byte_level())
    shared = share_vocabulary(vocabulary, Vocabulary.from_tokenizer(byte_level()))
    assert shared.same
    np.testing.assert_array_equal(shared.student_id_of, np.arange(vocabulary.size))
    other_end = Vocabulary(
        vocabulary.tokens, vocabulary.special_ids, vocabulary.special_token_text, frozenset(), {"eos": 5}
    )
    assert not share_vocabulary(vocabulary, other_end).same


def test_special_tokens_are_not_shared_by_their_spelling() -> None:
    first, second = byte_level(end="<|x|>"), byte_level(end="<|x|>")
    second.add_special_tokens({"eos_token": "<|y|>"})
    shared = share_vocabulary(Vocabulary.from_tokenizer(first), Vocabulary.from_tokenizer(second))
    pairs = dict(zip(shared.teacher_ids.tolist(), shared.student_ids.tolist(), strict=True))
    assert pairs[first.eos_token_id] == second.convert_tokens_to_ids("<|y|>")
    assert second.convert_tokens_to_ids("<|x|>") not in pairs.values()


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False
        name_or_path = "some/folder"

    with pytest.raises(InputError, match=r"some/folder: this tokenizer gives no offsets.*fix:"):
        Vocabulary.from_tokenizer(Slow())


def test_a_spelling_that_is_not_bytes_is_refused() -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()
    with pytest.raises(InputError, match="WordPiece"):
        Vocabulary.from_tokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]"))


def test_added_tokens_beyond_a_head_are_left_out_and_trained_ones_are_an_error() -> None:
    tokenizer = byte_level()
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    whole = Vocabulary.from_tokenizer(tokenizer)
    cut = whole.truncate_to_head(rows, "some/model")
    assert (whole.size, cut.size) == (rows + 1, rows)
    assert cut.fingerprint != whole.fingerprint
    assert max(share_vocabulary(cut, cut).teacher_ids) < rows
    with pytest.raises(
        InputError, match=rf"some/model: the head has {rows - 1} rows but the tokenizer {rows + 1} tokens"
    ):
        whole.truncate_to_head(rows - 1, "some/model")

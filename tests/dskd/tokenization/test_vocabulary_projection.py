"""W between two vocabularies: what the released code makes of the same texts, and where ours is meant to differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dskd.tokenization.pieces import LongestMatch, TokenizerPieces
from dskd.tokenization.vocabulary import SharedVocabulary, Vocabulary, share_vocabulary
from dskd.tokenization.vocabulary_projection import VocabularyProjection, project_vocabulary
from helpers import golden
from helpers.tiny_tokenizers import byte_level, sentencepiece

FILES = {
    "bl_student": ("eta_student_tokenizer.json", "<|student_end|>"),
    "bl_teacher": ("eta_teacher_tokenizer.json", "<|teacher_end|>"),
    "sp_student": ("newer/sp_student_tokenizer.json", "</s>"),
}
CASES = [case for case in golden.cases("xtoken_projection") if case["name"].endswith(("/plain", "/noscale"))]


def _tokenizer(name: str) -> Any:
    file, end = FILES[name]
    return PreTrainedTokenizerFast(tokenizer_file=str(golden.SHARED / file), eos_token=end)


def rows_of(found: VocabularyProjection) -> dict[int, dict[int, float]]:
    rows: dict[int, dict[int, float]] = {}
    arrays = (found.student_ids, found.teacher_ids, found.weights)
    for student, teacher, weight in zip(*(array.tolist() for array in arrays), strict=True):
        rows.setdefault(student, {})[teacher] = weight
    return rows


def _stored_rows(case: dict[str, Any]) -> dict[int, dict[int, float]]:
    given = golden.tensors(case)
    rows: dict[int, dict[int, float]] = {}
    for student, (ids, weights) in enumerate(zip(given["indices"].tolist(), given["weights"].tolist(), strict=True)):
        own = {k: weight for k, weight in zip(ids, weights, strict=True) if k >= 0 and weight > 0}
        if own:
            rows[student] = own
    return rows


def _assert_same(ours: dict[int, float], theirs: dict[int, float], student: int) -> None:
    """Weights are stored in bfloat16. Of a full row the last may be any of those that weigh as much."""
    assert sorted(ours.values()) == pytest.approx(sorted(theirs.values()), abs=5e-3), student
    last = min(theirs.values()) if len(theirs) == 4 else 0.0
    assert {k for k, weight in theirs.items() if weight > last} <= ours.keys(), (student, ours, theirs)


def _as_released(tokenizer: Any) -> list[bytes]:
    """Each token as it is decoded alone, which drops a first space and replaces bytes that are no character; ends are left out."""
    names = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return [
        b"" if name.startswith("<|") and name.endswith("|>") else tokenizer.decode([k]).encode()
        for k, name in enumerate(names)
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_on_the_released_texts_and_twins_every_row_is_the_released_one(case: dict[str, Any]) -> None:
    student, teacher = _tokenizer(case["student"]), _tokenizer(case["teacher"])
    names = [tokenizer.get_vocab() for tokenizer in (teacher, student)]
    twins = sorted((k, names[1][name]) for name, k in names[0].items() if name in names[1])
    ids = np.array(twins, dtype=np.int64)
    shared = SharedVocabulary(
        ids[:, 0].copy(),
        ids[:, 1].copy(),
        np.full(len(teacher), -1),
        False,
        tuple(_as_released(teacher)),
        tuple(_as_released(student)),
    )

    def split_by(tokenizer: Any) -> Any:
        def pieces(strings: Sequence[bytes]) -> list[list[int]]:
            return tokenizer([data.decode() for data in strings], add_special_tokens=False)["input_ids"]

        return pieces

    reverse = split_by(student) if case["options"]["reverse_pass"] else None
    ours = rows_of(project_vocabulary(shared, split_by(teacher), reverse))
    theirs = _stored_rows(case)
    by_name = {student.eos_token_id} if case["options"]["special_mapping"] else set()  # of ends whose names are alike
    assert ours.keys() - by_name == theirs.keys() - by_name
    for k in theirs.keys() - by_name:
        _assert_same(ours[k], theirs[k], k)


@pytest.mark.skipif(not CASES, reason="the released values are not here")
@pytest.mark.parametrize("pair", ["A", "B"])
def test_it_differs_from_the_released_one_where_that_loses_bytes_or_spells_ends(pair: str) -> None:
    (case,) = (case for case in CASES if case["name"] == f"xtoken_projection/{pair}/plain")
    student, teacher = _tokenizer(case["student"]), _tokenizer(case["teacher"])
    vocabularies = [Vocabulary.from_tokenizer(tokenizer) for tokenizer in (teacher, student)]
    shared = share_vocabulary(*vocabularies)
    ours = rows_of(project_vocabulary(shared, TokenizerPieces(teacher, vocabularies[0].tokens)))
    theirs = _stored_rows(case)
    tokens = vocabularies[1].tokens
    differ = {k for k in ours.keys() | theirs.keys() if ours.get(k, {}).keys() != theirs.get(k, {}).keys()}
    for k in differ:
        token = tokens[k]
        assert token is None or token.startswith(b" ") or max(token) >= 0x80, (k, token)
    assert ours[student.eos_token_id] == {teacher.eos_token_id: 1.0}
    if pair == "B":
        assert {k for k in range(len(tokens)) if tokens[k] is None} - ours.keys() == {0, 1}  # <unk> and <s>
        river = next(k for k, token in enumerate(tokens) if token == b" river")
        assert b"".join(vocabularies[0].tokens[v] or b"" for v in ours[river]) == b" river"
        high = next(k for k, token in enumerate(tokens) if token == b"\x80")
        assert [vocabularies[0].tokens[v] for v in ours[high]] == [b"\x80"]
    else:
        assert differ == {student.eos_token_id}


@pytest.mark.parametrize("case", golden.cases("xtoken_projection"), ids=lambda case: case["name"])
def test_pairs_that_a_stored_w_matches_are_the_released_ones(case: dict[str, Any]) -> None:
    from helpers.x_token_cases import projection_of

    given = golden.tensors(case)
    found = projection_of(given["indices"], given["weights"])
    for least, name in ((1.0, "strict"), (0.6, "relaxed")):
        teachers, students = found.matched(least)
        pairs = set(zip(teachers.tolist(), students.tolist(), strict=True))
        stored = (given[f"{name}_{side}"].tolist() for side in ("teacher", "student"))
        assert pairs == set(zip(*stored, strict=True))


KINDS = {"byte-level": byte_level, "SentencePiece": sentencepiece}


@pytest.mark.parametrize("teacher_kind", KINDS)
@pytest.mark.parametrize("student_kind", KINDS)
def test_every_row_is_the_beginning_of_the_tokens_bytes(teacher_kind: str, student_kind: str) -> None:
    teacher, student = KINDS[teacher_kind](), KINDS[student_kind](350)
    vocabularies = [Vocabulary.from_tokenizer(tokenizer) for tokenizer in (teacher, student)]
    shared = share_vocabulary(*vocabularies)
    found = project_vocabulary(shared, TokenizerPieces(teacher, vocabularies[0].tokens))
    rows = rows_of(found)
    twins = dict(zip(shared.student_ids.tolist(), shared.teacher_ids.tolist(), strict=True))
    several = 0
    for k, token in enumerate(vocabularies[1].tokens):
        if k in twins:
            assert rows[k] == {twins[k]: 1.0}
        elif not token:
            assert k not in rows
        else:
            whole = b"".join(vocabularies[0].tokens[v] or b"" for v in rows[k])  # by descending weight
            repeated = len(rows[k]) < 4 and whole != token
            assert token.startswith(whole) or repeated, (token, whole)
            several += len(rows[k]) > 1
        assert sum(rows.get(k, {0: 1.0}).values()) == pytest.approx(1.0)
    assert several > 10 or teacher_kind == student_kind


def test_the_weights_of_pieces_fall_tenfold_and_a_piece_that_comes_again_adds_up() -> None:
    shared = SharedVocabulary(
        np.array([0]), np.array([0]), np.full(4, -1), False, (b"a", b"b", b"c", b"d"), (b"a", b"bcd", b"bbcbd", None)
    )
    rows = rows_of(project_vocabulary(shared, LongestMatch(shared.teacher_tokens)))
    assert rows[0] == {0: 1.0}
    assert rows[1] == pytest.approx({1: 1 / 1.11, 2: 0.1 / 1.11, 3: 0.01 / 1.11})
    assert rows[2] == pytest.approx({1: 1.101 / 1.111, 2: 0.01 / 1.111})  # b, b, c, b; the fifth is beyond
    assert 3 not in rows
    assert project_vocabulary(shared, LongestMatch(shared.teacher_tokens)).weights.dtype == np.float32


def test_a_reverse_pass_adds_what_the_student_splits_the_teachers_tokens_into() -> None:
    teacher, student = (b"a", b"ab", b"b"), (b"ab", b"b", b"aa")
    shared = SharedVocabulary(np.array([2]), np.array([1]), np.full(3, -1), False, teacher, student)
    of_teacher, of_student = LongestMatch(teacher), LongestMatch((*student, b"a"))
    alone = rows_of(project_vocabulary(shared, of_teacher))
    both = rows_of(project_vocabulary(shared, of_teacher, lambda strings: [[0] if s == b"ab" else [] for s in strings]))
    assert alone[2] == {0: 1.0}
    assert alone[0] == both[0] == {1: 1.0}
    assert both[1] == {2: 1.0}  # a twin stays alone
    assert of_student([b"aab"]) == [[2, 1]]


def test_one_vocabulary_gives_the_identity() -> None:
    vocabulary = Vocabulary.from_tokenizer(byte_level(300))
    found = project_vocabulary(share_vocabulary(vocabulary, vocabulary), LongestMatch(vocabulary.tokens))
    assert found.student_ids.tolist() == found.teacher_ids.tolist() == list(range(vocabulary.size))
    assert set(found.weights.tolist()) == {1.0}
    assert [side.tolist() for side in found.matched(1.0)] == [list(range(vocabulary.size))] * 2


def test_a_twin_is_matched_before_another_row_that_is_all_on_its_token() -> None:
    """A SentencePiece vocabulary has "A" twice: as a piece and, with a lower id, as a byte."""
    shared = SharedVocabulary(np.array([0]), np.array([1]), np.full(1, -1), False, (b"A",), (b"A", b"A"))
    found = project_vocabulary(shared, LongestMatch(shared.teacher_tokens))
    assert rows_of(found) == {0: {0: 1.0}, 1: {0: 1.0}}
    assert [side.tolist() for side in found.matched(1.0, shared)] == [[0], [1]]
    assert [side.tolist() for side in found.matched(1.0)] == [[0], [0]]

"""Who writes the text that a student is trained on: what may be said, what it is called, and which methods can learn from it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from dskd import methods
from dskd.compatibility import check, check_text, texts_of
from dskd.errors import InputError
from dskd.rollouts.options import RolloutOptions
from dskd.text import AUTHORS, Text


def text(given: Any) -> Text:
    return Text.model_validate(given)


@pytest.mark.parametrize(
    ("given", "shares", "label"),
    [
        ("data", {"data": 1}, "data"),
        ("teacher", {"teacher": 1}, "teacher"),
        ({"teacher": {}}, {"teacher": 1}, "teacher"),
        ({"teacher": {"samples": 4, "keep": "right"}}, {"teacher": 1}, "teacher-4-right"),
        ({"teacher": {"temperature": 0.7, "max_new_tokens": 64}}, {"teacher": 1}, "teacher-temperature-0.7-max_new_tokens-64"),
        ({"data": 0.5, "student": 0.5}, {"data": 0.5, "student": 0.5}, "data-0.5-student-0.5"),
        ({"data": "0.5", "student": "0.5"}, {"data": 0.5, "student": 0.5}, "data-0.5-student-0.5"),
        (
            {"teacher": 0.5, "data": 0.3, "student": {"top_p": 0.9}},
            {"data": 0.3, "teacher": 0.5, "student": 0.2},
            "data-0.3-teacher-0.5-student-0.2-top_p-0.9",
        ),
    ],
)  # fmt: skip
def test_a_text_has_shares_and_a_name(given: Any, shares: dict[str, float], label: str) -> None:
    read = text(given)
    assert read.shares == pytest.approx(shares)
    assert list(read.shares) == [author for author in AUTHORS if author in shares]
    assert read.label == label
    assert read.only == (next(iter(shares)) if len(shares) == 1 else None)


def test_what_is_written_before_the_training_is_divided_between_data_and_teacher() -> None:
    assert text({"teacher": 0.5, "data": 0.3, "student": 0.2}).teacher_part == pytest.approx(0.625)
    assert text({"teacher": 0.5, "student": 0.5}).teacher_part == 1.0
    assert text({"data": 0.5, "student": 0.5}).teacher_part == 0.0
    assert text("student").teacher_part == 0.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("me", "no text 'me'; fix: write one of data, teacher, student, or"),
        ({}, "names nobody who writes; fix"),
        (3, "is neither a name nor a mixture; fix"),
        ({"data": 0.5}, "the shares sum to 0.5; fix: make them sum to 1"),
        ({"data": 1, "student": {}}, "leaves nothing for student; fix"),
        ({"teacher": {}, "student": {}}, "teacher and student have no share; fix"),
        ({"teacher": {"samples": 2, "temperature": 0}}, "2 samples at temperature 0 would be the same; fix"),
        ({"teacher": {"task": "gsm8k"}}, "`task` means nothing with keep: all; fix"),
        ({"student": {"temperature": 0}}, "greater than 0"),
        ({"students": 1}, "Extra inputs"),
    ],
)
def test_what_is_no_text_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        text(given)


def test_several_samples_are_drawn_and_one_is_greedy() -> None:
    drawn = [text({"teacher": {"samples": samples}}).teacher for samples in (1, 4)]
    assert [each.sampled_at for each in drawn if each is not None] == [0.0, 1.0]


def test_the_student_s_share_becomes_rollouts() -> None:
    assert text("teacher").rollouts({"top_p": 0.5}) is None
    assert text("student").rollouts(None) == {"share": 1.0}
    own = text({"data": 0.5, "student": {"share": 0.5, "temperature": 0.8}})
    assert own.rollouts({"temperature": 1.0, "top_p": 0.5}) == {"temperature": 0.8, "top_p": 0.5, "share": 0.5}
    assert own.rollouts({"share": 0.5}) == {"share": 0.5, "temperature": 0.8}
    with pytest.raises(InputError, match=r"rollouts.share: is 0.5, but `text` gives the student 1; fix: leave one"):
        text("student").rollouts({"share": 0.5})
    with pytest.raises(InputError, match="gives the student 0"):
        text("data").rollouts({"share": 0.5})


def test_every_method_learns_from_some_text_and_says_the_same_as_the_rules_of_rollouts() -> None:
    """Of the student's text: `check` of a training with such rollouts finds nothing exactly where `text: student` is taken."""
    for name in methods.METHODS:
        method = methods.get(name)()
        able = texts_of(method)
        assert able
        for author in AUTHORS:
            problems = check_text(method, text(author))
            assert (problems == []) == (author in able), (name, author)
        found = check(method, rollouts=RolloutOptions(share=1.0), has_teacher=True)
        assert ("student" in able) == (found == []), name
        mixture = check_text(method, text({"data": 0.5, "student": 0.5}))
        assert (mixture == []) == ({"data", "student"} <= {*able}), name


@pytest.mark.parametrize(
    ("name", "given", "start", "can", "cannot"),
    [
        ("minillm", "data", "minillm cannot learn from the data's text; fix: text: student, or use what can", "kd", "seqkd"),
        ("alm", "student", "alm cannot learn from the student's text; fix: give it the data's or the teacher's", "gkd", "sft"),
        ("seqkd", "student", "seqkd cannot learn from the student's text; fix: text: teacher", "minillm", "alm"),
        ("sft", {"data": 0.5, "student": 0.5}, "sft cannot learn from the student's text; fix: give it", "kd", "minillm"),
    ],
)  # fmt: skip
def test_a_method_that_cannot_is_refused_in_a_line_that_names_what_can(
    name: str, given: Any, start: str, can: str, cannot: str
) -> None:
    (problem,) = check_text(methods.get(name)(), text(given))
    line = problem.text("m.yaml: text")
    assert line.startswith(f"m.yaml: text: {start}")
    assert "\n" not in line
    named = line.partition("learn from this: ")[2].split(", ")
    assert can in named
    assert cannot not in named

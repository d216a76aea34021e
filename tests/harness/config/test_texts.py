"""`text` in a matrix: at its top, at a pair, at a method, and as an axis; what each makes of methods, trainings and teacher outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError
from harness.config.matrix import Matrix
from harness.config.matrix_file import read_matrix
from harness.config.selection import cells, select

Content = dict[str, Any]
Read = Callable[..., Matrix]
PAIR = {"teacher": "teacher", "student": "same", "methods": ["sft", "kd"]}
RIGHT = {"teacher": {"samples": 4, "keep": "shortest_right"}}


@pytest.fixture
def read(tiny: Content, write_matrix: Callable[[Any], Path]) -> Read:
    """Reads the tiny matrix with the keys given; its pair is teacher -> same by sft and kd, unless others are."""

    def reading(**keys: Any) -> Matrix:
        content = {**copy.deepcopy(tiny), "pairs": [PAIR]}
        return read_matrix(write_matrix({**content, **keys}))

    return reading


def test_an_axis_of_texts_keeps_the_cells_that_were_there(read: Read) -> None:
    matrix = read(
        axes={"text": ["data", "teacher", "student", {"data": 0.5, "student": 0.5}, RIGHT]},
        exclude=[{"method": "sft", "text": ["student", "data-0.5-student-0.5"]}],
    )
    assert matrix.pairs[0].methods == [
        "sft", "sft+teacher", "sft+teacher-4-shortest_right",
        "kd", "kd+teacher", "kd+student", "kd+data-0.5-student-0.5", "kd+teacher-4-shortest_right",
    ]  # fmt: skip
    assert [matrix.method_of(name) for name in ("sft", "sft+teacher", "kd+teacher")] == ["sft", "seqkd", "kd"]
    text = matrix.text_of("kd+teacher-4-shortest_right")
    assert text is not None
    assert text.teacher is not None
    assert (text.teacher.samples, text.teacher.keep) == (4, "shortest_right")
    chosen, _ = select(matrix, ["text=teacher", "method=kd"], "m.yaml")
    assert {cell.method for cell in chosen} == {"kd+teacher"}


def test_the_student_s_text_is_rollouts_with_a_teacher_that_is_asked_live(read: Read) -> None:
    rollouts = {"max_new_tokens": 9, "temperature": 0.7}
    matrix = read(
        axes={"text": ["data", "teacher", "student", {"student": {"share": 0.25, "temperature": 0.5}, "data": 0.75}]},
        methods={"sft": {"axes": []}},
        training={"data": "student", "steps": 2, "rollouts": rollouts},
    )
    named = [name for name in matrix.pairs[0].methods if name != "sft"]
    found = [matrix.training_of(name).options.get("rollouts") for name in named]
    last = {"max_new_tokens": 9, "temperature": 0.5, "share": 0.25}
    assert found == [None, None, {**rollouts, "share": 1.0}, last]
    assert [matrix.outputs_of(name).kind for name in named] == ["hidden_states", "hidden_states", "live", "live"]


def test_a_cache_in_another_precision_is_not_taken_for_a_live_teacher(read: Read) -> None:
    matrix = read(pairs=[{**PAIR, "methods": ["kd"]}], text="student", teacher_outputs={"stored_dtype": "float16"})
    assert matrix.outputs_of("kd").kind == "hidden_states"


def test_the_nearest_text_counts(read: Read) -> None:
    """The matrix's, then the pair's, then the method's."""
    pairs = [{**PAIR, "methods": ["kd", "gkd"], "text": "student"}, {**PAIR, "student": "cross", "methods": ["uld"]}]
    matrix = read(text="teacher", pairs=pairs, methods={"gkd": {"text": "data"}})
    assert [pair.methods for pair in matrix.pairs] == [["kd+student", "gkd"], ["uld"]]
    found = {name: matrix.text_of(name) for name in ("kd+student", "gkd", "uld")}
    assert {name: text.only for name, text in found.items() if text is not None} == {
        "kd+student": "student", "gkd": "data", "uld": "teacher",
    }  # fmt: skip
    assert matrix.axes_of("kd+student") == {"text": "student"}


def test_a_pair_with_the_text_of_the_matrix_keeps_the_names_of_its_methods(read: Read) -> None:
    assert read(text="teacher", pairs=[{**PAIR, "text": "teacher"}]).pairs[0].methods == ["sft", "kd"]
    assert read(pairs=[{**PAIR, "text": "data"}]).pairs[0].methods == ["sft", "kd"]
    # Not where the matrix has the student write: another pair's `kd` is on-policy.
    rollouts = {"data": "student", "steps": 2, "rollouts": {"max_new_tokens": 4}}
    pairs = [{**PAIR, "methods": ["kd"], "text": "data"}, {**PAIR, "student": "cross", "methods": ["uld"]}]
    matrix = read(pairs=pairs, training=rollouts)
    assert matrix.pairs[0].methods == ["kd+data"]
    assert matrix.training_of("kd+data").options.get("rollouts") is None
    assert matrix.training_of("uld").options["rollouts"] == {"max_new_tokens": 4}


def test_texts_are_combined_with_other_axes_and_saved_with_the_run(
    read: Read, write_matrix: Callable[..., Path]
) -> None:
    axes = {"rate": {"low": {"training": {"learning_rate": 1e-4}}}, "text": {"plain": {}, "own": {"text": "student"}}}
    matrix = read(axes=axes, pairs=[{**PAIR, "methods": ["kd"]}])
    assert matrix.pairs[0].methods == ["kd+low", "kd+low+own"]
    again = read_matrix(write_matrix(matrix.resolved))
    assert [cell.folder for cell in cells(again)] == [cell.folder for cell in cells(matrix)]
    assert again.training_of("kd+low+own") == matrix.training_of("kd+low+own")


def test_a_cell_may_be_added_with_a_text_of_its_own(read: Read) -> None:
    added = {"teacher": "teacher", "student": "same", "method": "kd"}
    matrix = read(include=[{**added, "text": "student"}, {**added, "text": {"data": 0.5, "student": 0.5}}])
    assert [cell.method for cell in matrix.include] == ["kd+student", "kd+data-0.5-student-0.5"]
    assert matrix.training_of("kd+student").options["rollouts"] == {"share": 1.0}
    assert matrix.text_of("kd") is None


def test_fine_tuning_on_the_teacher_s_text_by_either_name_has_the_same_options(read: Read) -> None:
    matrix = read(
        pairs=[{**PAIR, "methods": ["sft", "seqkd", "plain"]}],
        methods={
            "sft": {"text": {"teacher": {"temperature": 1.0, "max_new_tokens": 9}}},
            "seqkd": {"answer_temperature": 1.0, "max_new_tokens": 9},
            "plain": {"method": "sft", "text": "teacher"},
        },
    )
    assert {matrix.method_of(name) for name in ("sft", "seqkd", "plain")} == {"seqkd"}
    assert (
        matrix.method_options("sft")
        == matrix.method_options("seqkd")
        == {"answer_temperature": 1.0, "max_new_tokens": 9}
    )
    assert matrix.text_of("sft") == matrix.text_of("seqkd")
    assert matrix.method_options("plain") == {}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text": "me"}, r"matrix.yaml: text: no text 'me'; fix: write one of data, teacher, student"),
        ({"text": {"data": 0.5}}, r"matrix.yaml: text: the shares sum to 0.5; fix"),
        ({"text": {"teacher": {"keep": "best"}}}, r"matrix.yaml: text.teacher.keep: input should be"),
        ({"pairs": [{**PAIR, "text": "me"}]}, r"matrix.yaml: pairs.0.text: no text 'me'"),
        ({"methods": {"kd": {"text": "me"}}}, r"matrix.yaml: methods.kd.text: no text 'me'"),
        ({"axes": {"text": ["data", "me"]}}, r"matrix.yaml: axes.text.1: no text 'me'"),
        ({"axes": {"text": ["data", {"teacher": {"sample": 3}}]}}, r"axes.text.1.teacher.sample: unknown key"),
        ({"axes": {"text": ["data", "data"]}}, r"axes.text: a value is given twice"),
        (
            {"axes": {"text": ["data"]}, "pairs": [{**PAIR, "text": "data"}]},
            r"pairs.0.text: and `axes` has text too; fix: leave one of the two out",
        ),
        (
            {"methods": {"kd": {"text": "student", "training": {"rollouts": {"share": 0.5}}}}},
            r"methods.kd.training.rollouts.share: is 0.5, but `text` gives the student 1; fix: leave one of the two out",
        ),
        (
            {"methods": {"seqkd": {"answer_temperature": 1.0, "text": {"teacher": {"temperature": 0.5}}}}},
            r"methods.seqkd.answer_temperature: is 1.0, but `text` says temperature: 0.5; fix: leave one of the two out",
        ),
    ],
)
def test_mistakes_name_their_place_and_the_way_out(read: Read, keys: Content, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read(**keys)
    assert "\n" not in str(refused.value)

"""Groups, axes, include and exclude: what a short file makes of pairs, methods and cells."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.config.matrix import Matrix
from harness.config.matrix_file import read_matrix
from harness.config.selection import cells, cells_with_tasks

Content = dict[str, Any]
Read = Callable[..., Matrix]


@pytest.fixture
def read(tiny: Content, write_matrix: Callable[[Any], Path]) -> Read:
    """Reads the tiny matrix with the keys given; its pairs are teacher -> same by kd, unless others are."""

    def reading(**keys: Any) -> Matrix:
        content = copy.deepcopy(tiny)
        content["pairs"] = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
        content["evaluation"]["score_teachers"] = False
        content["data"]["other"] = {"small_world": "teacher", "limit": 24}
        return read_matrix(write_matrix({**content, **keys}))

    return reading


def folders(matrix: Matrix) -> list[str]:
    """The cells, without the teacher that all of them have."""
    return [cell.folder.removeprefix("teacher__") for cell in cells(matrix)]


# --- groups ---


def test_groups_stand_where_lists_of_names_do(read: Read) -> None:
    matrix = read(
        groups={"rivals": ["gkd", "kd"], "all": ["sft", "rivals"], "students": ["same", "cross"]},
        pairs=[{"teacher": "teacher", "student": "students", "methods": ["sft"]}],
    )
    assert [(pair.student, pair.methods) for pair in matrix.pairs] == [("same", ["sft"]), ("cross", ["sft"])]
    matrix = read(
        groups={"rivals": ["gkd", "kd"], "all": ["sft", "rivals"]},
        pairs=[{"teacher": ["teacher"], "student": "same", "methods": "all"}],
    )
    assert matrix.pairs[0].methods == ["sft", "gkd", "kd"]
    assert matrix.groups["all"] == ["sft", "gkd", "kd"]


def test_what_two_groups_have_or_what_is_named_beside_them_stands_once(read: Read) -> None:
    matrix = read(
        groups={"soft": ["kd", "gkd"], "more": ["gkd", "distillm"]},
        pairs=[{"teacher": "teacher", "student": "same", "methods": ["soft", "more", "distillm"]}],
    )
    assert matrix.pairs[0].methods == ["kd", "gkd", "distillm"]


def test_a_pair_may_name_several_teachers_and_students(read: Read) -> None:
    matrix = read(pairs=[{"teacher": ["teacher", "cross"], "student": ["same", "cross"], "methods": ["sft"]}])
    assert [(pair.teacher, pair.student) for pair in matrix.pairs] == [
        ("teacher", "same"), ("teacher", "cross"), ("cross", "same"), ("cross", "cross"),
    ]  # fmt: skip


# --- axes ---


def test_methods_are_combined_with_every_value_of_every_axis(read: Read) -> None:
    matrix = read(
        methods={"hot": {"method": "kd", "temperature": 4.0, "training": {"weight_decay": 0.0}}},
        pairs=[{"teacher": "teacher", "student": "same", "methods": ["kd", "hot"]}],
        axes={
            "rate": {"low": {"training": {"learning_rate": 1e-4}}, "high": {"training": {"learning_rate": 1e-3}}},
            "text": {
                "data": {},
                "own": {"training": {"rollouts": {"share": 0.5}}, "teacher_outputs": {"kind": "live"}},
            },
        },
    )
    assert matrix.pairs[0].methods == [
        "kd+low", "kd+low+own", "kd+high", "kd+high+own", "hot+low", "hot+low+own", "hot+high", "hot+high+own",
    ]  # fmt: skip
    assert (matrix.method_of("hot+low+own"), matrix.method_options("hot+low+own")) == ("kd", {"temperature": 4.0})
    options = matrix.training_of("hot+low+own").options
    assert options == {
        **matrix.training.options, "weight_decay": 0.0, "learning_rate": 1e-4, "rollouts": {"share": 0.5},
    }  # fmt: skip
    assert (matrix.outputs_of("kd+low+own").kind, matrix.outputs_of("kd+low").kind) == ("live", "hidden_states")
    assert matrix.axes_of("kd+high") == {"rate": "high", "text": "data"}


def test_a_value_that_changes_nothing_leaves_the_cell_that_was_there(read: Read) -> None:
    before = read()
    after = read(axes={"text": {"data": {}, "own": {"training": {"rollouts": {"share": 0.5}}}}})
    assert folders(before) == ["same/kd/seed1"]
    assert folders(after) == ["same/kd/seed1", "same/kd+own/seed1"]
    assert after.training_of("kd") == before.training_of("kd")
    assert after.method_options("kd") == before.method_options("kd")


def test_a_list_is_an_axis_of_one_option(read: Read) -> None:
    matrix = read(
        training={
            "data": "student",
            "epochs": 1,
            "batch_size": 2,
            "max_length": 200,
            "rollouts": {"share": 0.5, "max_new_tokens": 9},
        },
        teacher_outputs={"kind": "live"},
        axes={"training.steps": [2, 4], "training.rollouts.share": [0.25], "temperature": [1.0, 2.5]},
    )
    names = matrix.pairs[0].methods
    assert names[:2] == ["kd+steps-2+share-0.25+temperature-1", "kd+steps-2+share-0.25+temperature-2.5"]
    assert len(names) == 4
    options = matrix.training_of(names[1]).options
    # `steps` takes the place of `epochs`; of a group of options the rest stays.
    assert "epochs" not in options
    assert (options["steps"], options["rollouts"]) == (2, {"share": 0.25, "max_new_tokens": 9})
    assert matrix.method_options(names[1]) == {"temperature": 2.5}


def test_a_method_says_which_axes_it_is_combined_with(read: Read) -> None:
    matrix = read(
        methods={"sft": {"axes": []}, "gkd": {"axes": ["rate"], "js_beta": 0.1}},
        pairs=[{"teacher": "teacher", "student": "same", "methods": ["sft", "gkd", "kd"]}],
        axes={"rate": {"low": {"training": {"learning_rate": 1e-4}}}, "temperature": [1, 3]},
    )
    assert matrix.pairs[0].methods == ["sft", "gkd+low", "kd+low+temperature-1", "kd+low+temperature-3"]
    assert matrix.method_options("gkd+low") == {"js_beta": 0.1}


def test_other_data_makes_pairs_of_their_own(read: Read) -> None:
    matrix = read(
        axes={"data": ["student", "other"], "temperature": [1, 3]},
        include=[{"teacher": "teacher", "student": "cross", "method": "sft", "data": "other"}],
    )
    assert folders(matrix) == [
        "same/kd+temperature-1/seed1", "same/kd+temperature-3/seed1",
        "same+other/kd+temperature-1/seed1", "same+other/kd+temperature-3/seed1", "cross+other/sft/seed1",
    ]  # fmt: skip
    assert {cell.student: matrix.data_of(cell) for cell in cells(matrix)} == {"same": "other", "cross": "other"}
    assert matrix.trained_pairs == [("teacher", "same"), ("teacher", "same+other"), ("teacher", "cross+other")]


def test_the_first_data_set_of_the_axis_is_the_matrix_s_own_where_training_names_none(
    read: Read, tiny: Content
) -> None:
    training = {key: value for key, value in tiny["training"].items() if key != "data"}
    matrix = read(training=training, axes={"data": ["other", "student"]})
    assert folders(matrix) == ["same/kd/seed1", "same+student/kd/seed1"]
    assert matrix.training.data == "other"


def test_a_pair_may_name_its_data_without_axes(read: Read) -> None:
    pair = {"teacher": "teacher", "student": "same", "methods": ["kd"]}
    assert folders(read(pairs=[pair, {**pair, "data": "other"}])) == ["same/kd/seed1", "same+other/kd/seed1"]
    assert folders(read(pairs=[{**pair, "data": ["student", "other"]}])) == ["same/kd/seed1", "same+other/kd/seed1"]


# --- include and exclude ---

RATE = {"low": {"training": {"learning_rate": 1e-4}}, "high": {"training": {"learning_rate": 1e-3}}}
PAIR = {"teacher": "teacher", "student": "same", "methods": ["sft", "kd", "gkd"]}


def test_exclude_leaves_out_the_cells_that_have_all_keys_of_an_entry(read: Read) -> None:
    matrix = read(
        pairs=[PAIR],
        groups={"soft": ["kd", "gkd"]},
        seeds=[1, 2],
        axes={"rate": RATE},
        exclude=[
            {"method": "soft", "rate": "low"},
            {"method": "s*", "seed": 2},
            {"method": "gkd+high", "seed": [1, 2]},
        ],
    )
    assert folders(matrix) == ["same/sft+low/seed1", "same/sft+high/seed1", "same/kd+high/seed1", "same/kd+high/seed2"]
    # What is left out altogether need not go together, and is no method of the matrix any more.
    assert matrix.pairs[0].methods == ["sft+low", "sft+high", "kd+high"]
    assert {"kd+low", "gkd+high"}.isdisjoint(matrix.methods)


def test_what_is_excluded_is_not_checked(read: Read) -> None:
    axes = {"temperature": [1, 2]}
    with pytest.raises(Exception, match=r"axes\.temperature\.0: unknown key"):
        read(pairs=[PAIR], axes=axes)
    matrix = read(pairs=[PAIR], axes=axes, exclude=[{"method": ["sft", "gkd"]}])
    assert matrix.pairs[0].methods == ["kd+temperature-1", "kd+temperature-2"]


def test_exclude_of_a_task_leaves_out_the_evaluation_alone(read: Read) -> None:
    matrix = read(
        pairs=[PAIR],
        tasks={"small_math": None, "small_instruct": None},
        evaluation={"score_teachers": True},
        exclude=[
            {"method": ["sft", "teacher"], "task": "small_instruct"},
            {"student": "same", "method": "kd", "task": "small_*"},
        ],
    )
    assert {cell.method: tasks for cell, tasks in cells_with_tasks(matrix).items()} == {
        "teacher": ["small_math"],
        "sft": ["small_math"],
        "kd": [],
        "gkd": ["small_math", "small_instruct"],
    }


def test_a_teacher_none_of_whose_students_is_left_is_not_scored(read: Read) -> None:
    pairs = [PAIR, {"teacher": "cross", "student": "same", "methods": ["sft"]}]
    matrix = read(pairs=pairs, evaluation={"score_teachers": True}, exclude=[{"teacher": "cross", "student": "same"}])
    assert [cell.teacher for cell in cells(matrix) if cell.student is None] == ["teacher"]
    matrix = read(pairs=pairs, evaluation={"score_teachers": True}, exclude=[{"teacher": "cross", "method": "teacher"}])
    assert [cell.teacher for cell in cells(matrix) if cell.student is None] == ["teacher"]
    assert "cross__same/sft/seed1" in [cell.folder for cell in cells(matrix)]


def test_include_adds_single_cells(read: Read) -> None:
    matrix = read(
        axes={"rate": RATE},
        tasks={"small_math": None, "small_instruct": None},
        include=[
            {"teacher": "teacher", "student": "cross", "method": "dskd-v2-eta", "seed": [8, 9], "task": "small_math"},
            {"teacher": "teacher", "student": "same", "method": "gkd", "rate": "low"},
            {"teacher": "teacher", "student": "same", "method": "sft"},
        ],
        exclude=[{"method": "dskd-*", "seed": 9}],
    )
    assert {cell.folder.removeprefix("teacher__"): tasks for cell, tasks in cells_with_tasks(matrix).items()} == {
        "same/kd+low/seed1": ["small_math", "small_instruct"],
        "same/kd+high/seed1": ["small_math", "small_instruct"],
        "cross/dskd-v2-eta/seed8": ["small_math"],
        "same/gkd+low/seed1": ["small_math", "small_instruct"],
        "same/sft/seed1": ["small_math", "small_instruct"],
    }
    assert matrix.training_of("gkd+low").options["learning_rate"] == 1e-4

"""A matrix that extends another, and keys under former names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dskd.errors import InputError
from harness.cli import main
from harness.config.matrix import Matrix
from harness.config.matrix_file import find_matrix, read_matrix
from harness.planning.plan import make_plan

Content = dict[str, Any]


@pytest.fixture
def write(tiny: Content, tmp_path: Path) -> Callable[..., Path]:
    """Writes base.yaml, and own.yaml that extends it with the keys given."""

    def written(base: Content | None = None, **own: Any) -> Path:
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny | (base or {})))
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump({"extends": "base.yaml", "name": "own", **own}))
        return path

    return written


def without_name(matrix: Matrix) -> Content:
    return matrix.model_dump(exclude={"name", "description"})


def test_without_keys_of_its_own_it_is_the_other_under_another_name(
    write: Callable[..., Path], write_matrix: Callable[[Any], Path], tiny: Content
) -> None:
    own = read_matrix(write(base={"description": "The base."}))
    assert without_name(own) == without_name(read_matrix(write_matrix(tiny)))
    assert (own.name, own.description) == ("own", "")


def test_entries_of_groups_are_joined_and_all_else_is_replaced(write: Callable[..., Path], tiny: Content) -> None:
    path = write(
        base={"teacher_outputs": {"kind": "top_k", "k": 7}, "methods": {"kd": {"temperature": 3.0}}},
        models={"cross": {"path": "elsewhere"}},
        methods={"hot-kd": {"method": "kd", "temperature": 4.0}},
        training={"epochs": 2},
        teacher_outputs={"kind": "live"},
        seeds=[4],
        pairs=[{"teacher": "teacher", "student": "cross", "methods": ["sft"]}],
        tasks={"small_code": {}},
        evaluation={"engine": "transformers"},
    )
    matrix = read_matrix(path)
    assert set(matrix.models) == set(tiny["models"])
    assert matrix.models["cross"].model_dump() == {"path": "elsewhere", "add_bos_token": False, "template": None}
    assert set(matrix.methods) == {"kd", "hot-kd"}
    # Of two options that exclude each other, its own replaces the other.
    rest = {key: value for key, value in tiny["training"].items() if key not in {"data", "steps"}}
    assert matrix.training.options == {**rest, "epochs": 2}
    assert matrix.teacher_outputs.options == {"kind": "live"}
    assert (matrix.seeds, len(matrix.pairs), list(matrix.tasks)) == ([4], 1, ["small_math", "small_code"])
    assert matrix.evaluation.engine == "transformers"


@pytest.mark.parametrize(
    ("base", "own", "message"),
    [
        ({"methods": {"kd": {"tau": 1}}}, {}, "base.yaml: methods.kd.tau: unknown key"),
        ({}, {"methods": {"kd": {"tau": 1}}}, "own.yaml: methods.kd.tau: unknown key"),
        ({"seeds": [1, 1]}, {}, "base.yaml: seeds: the same seed"),
        ({"seeds": [1, 1]}, {"seeds": []}, "own.yaml: seeds: list should have"),
        ({"sedes": [1]}, {}, "base.yaml: sedes: unknown key"),
        ({}, {"training": {"stepz": 1}}, "own.yaml: training.stepz: unknown key"),
        (
            {"evaluation": {"engine": "vlm"}},
            {"evaluation": {"seed": 1}},
            "base.yaml: evaluation.engine vlm: no such engine",
        ),
        ({}, {"models": {"own": {"path": "${NOT_SET}"}}}, "own.yaml: models.own.path: the variable NOT_SET"),
        ({"description": 3}, {"name": "a/b"}, "own.yaml: name: 'a/b' is not a name"),
        ({}, {"extends": "bose.yaml"}, "own.yaml: extends: bose.yaml: no such matrix file"),
        ({}, {"extends": [3]}, "own.yaml: extends: [3] is no name or file of a matrix; fix: "),
        ({"extends": "own.yaml"}, {}, "base.yaml: extends: goes round in a circle (own.yaml -> base.yaml -> own.yaml)"),
        ({}, {"extends": "own.yaml"}, "own.yaml: extends: goes round in a circle"),
    ],
)
def test_a_mistake_is_named_with_the_file_that_has_the_key(
    write: Callable[..., Path], base: Content, own: Content, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        read_matrix(write(base, **own))


def test_a_shipped_matrix_is_extended_by_its_name(write: Callable[..., Path]) -> None:
    quick, methods = (read_matrix(find_matrix(name)) for name in ("quick", "methods"))
    assert read_matrix(write(extends="quick")).models == quick.models
    assert methods.models.keys() == quick.models.keys()
    assert methods.data == quick.data
    assert methods.training.options == {**quick.training.options, "steps": 300, "packing": False}


def test_variables_of_the_other_matrix_are_set_as_its_own(write: Callable[..., Path]) -> None:
    path = write(base={"models": {"teacher": {"path": "${WHERE}"}}}, pairs=[], models={"same": {"path": "x"}})
    with pytest.raises(InputError, match=r"base\.yaml: models\.teacher\.path: the variable WHERE is not set"):
        read_matrix(path)
    with pytest.raises(InputError, match=r"own\.yaml: pairs: list should have at least 1 item"):
        read_matrix(path, {"WHERE": "there"})


def test_a_former_name_is_accepted_with_a_notice(write: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    former = {
        "teacher_signal": {"kind": "live"},
        "training": {"data": "student", "steps": 2, "fused_loss": False},
        "methods": {"kd": {"teacher_signal": {"kind": "top_k"}}},
    }
    with caplog.at_level(logging.INFO, "harness"):
        path = write(base=former)
        matrix = read_matrix(path)
    assert (matrix.outputs_of("sft").kind, matrix.outputs_of("kd").kind) == ("live", "top_k")
    base = path.parent / "base.yaml"
    assert set(caplog.messages) == {
        f"{base}: teacher_signal is now teacher_outputs",
        f"{base}: methods.kd.teacher_signal is now teacher_outputs",
        f"{base}: training.fused_loss is now chunked_loss",
    }
    with pytest.raises(InputError, match=r"own\.yaml: teacher_signal: is given as teacher_outputs too; fix: keep"):
        read_matrix(write(teacher_signal={"kind": "live"}, teacher_outputs={"kind": "live"}))


def test_a_notice_is_printed_once_and_not_into_the_plan(write: Callable[..., Path]) -> None:
    path = write(teacher_signal={"kind": "live"})
    result = CliRunner().invoke(main, ["plan", "--matrix", str(path), "--json"], catch_exceptions=False)
    assert result.stderr == f"notice: {path}: teacher_signal is now teacher_outputs\n"
    assert result.stdout.startswith("{")


# --- several bases ---


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., Path]:
    """Writes a file for each name, and returns the path of `own`."""

    def written(**contents: Content) -> Path:
        for name, content in contents.items():
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "own.yaml"

    return written


def test_of_several_bases_the_later_wins_and_the_file_itself_over_all(
    tiny: Content, files: Callable[..., Path]
) -> None:
    first = {**tiny, "methods": {"a": {"method": "kd", "temperature": 1.0}, "b": {"method": "kd"}}, "description": "no"}
    second = {
        "name": "second",
        "methods": {"b": {"method": "kd", "temperature": 2.0}},
        "training": {"epochs": 2, "dtype": "bfloat16"},
        "seeds": [7, 8],
        "tasks": {"small_code": None},
    }
    own = {"extends": ["first.yaml", "second.yaml"], "name": "own", "training": {"steps": 9}}
    matrix = read_matrix(files(first=first, second=second, own=own))
    assert {name: matrix.method_options(name) for name in matrix.methods} == {
        "a": {"temperature": 1.0},
        "b": {"temperature": 2.0},
    }
    assert matrix.training.options == {"steps": 9, "dtype": "bfloat16", "batch_size": 2, "max_length": 200}
    assert (matrix.name, matrix.description, matrix.seeds) == ("own", "", [7, 8])
    assert list(matrix.tasks) == ["small_math", "small_code"]
    # One of them may be a shipped one, and a base may be named by two.
    own = {"extends": ["quick", "first.yaml"], "name": "own", "pairs": tiny["pairs"]}
    assert "small-teacher" in read_matrix(files(own=own)).models
    both = {"extends": ["left.yaml", "right.yaml"], "name": "own"}
    left, right = {"extends": "first.yaml", "seeds": [3]}, {"extends": "first.yaml", "tasks": {}}
    assert read_matrix(files(left=left, right=right, own=both)).seeds == [1]


@pytest.mark.parametrize(
    ("first", "second", "own", "message"),
    [
        ({"methods": {"a": {"method": "kd", "tau": 1}}}, {}, {}, "first.yaml: methods.a.tau: unknown key"),
        ({}, {"methods": {"b": {"method": "kd", "tau": 1}}}, {}, "second.yaml: methods.b.tau: unknown key"),
        ({"methods": {"a": {"tau": 1}}}, {"methods": {"a": {"method": "kdd"}}}, {}, "second.yaml: methods.a: no method 'kdd'"),
        ({}, {"axes": {"rate": {}}}, {}, "second.yaml: axes.rate: has no values"),
        ({"axes": {"rate": {"a": {"training": {"stepz": 3}}}}}, {}, {}, "first.yaml: axes.rate.a.training.stepz: unknown key"),
        ({"groups": {"g": ["kdd"]}}, {"groups": {"h": ["kd"]}}, {}, "first.yaml: groups.g.0: no model, method"),
        ({}, {"exclude": [{"method": "kdd"}]}, {}, "second.yaml: exclude.0.method: no such method; did you mean 'kd'?"),
        ({"seeds": [1, 1]}, {}, {"seeds": [2, 2]}, "own.yaml: seeds: the same seed"),
        ({}, {"extends": "own.yaml"}, {}, "second.yaml: extends: goes round in a circle (own.yaml -> second.yaml -> own.yaml)"),
        ({}, {}, {"extends": []}, "own.yaml: extends: [] is no name or file of a matrix; fix: give one, or a list"),
        ({}, {}, {"extends": ["first.yaml", "none.yaml"]}, "own.yaml: extends.1: none.yaml: no such matrix file"),
        ({}, {"resources": {"train": {"gpus": 1.5}}}, {}, "second.yaml: resources.train: `gpus` is 1.5"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_the_one_of_several_files_that_has_it(
    tiny: Content, files: Callable[..., Path], first: Content, second: Content, own: Content, message: str
) -> None:
    pairs = [{"teacher": "teacher", "student": "same", "methods": ["kd"]}]
    path = files(
        first={**tiny, "pairs": pairs, **first},
        second=second or {"description": "nothing"},
        own={"extends": ["first.yaml", "second.yaml"], "name": "own", **own},
    )
    with pytest.raises(InputError, match=re.escape(message)):
        read_matrix(path)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"models": {"teacher": {"path": "nowhere"}}}, "base.yaml: models.teacher.path: no folder 'nowhere'"),
        ({"data": {"student": {"file": "nowhere.jsonl"}}}, "base.yaml: data.student.file: no file 'nowhere.jsonl'"),
        ({"training": {"rollouts": {"share": 0.5}, "steps": 1}}, "base.yaml: training.rollouts: "),
        ({"axes": {"text": {"own": {"training": {"rollouts": {}}}}}}, "base.yaml: axes.text.own.training.rollouts: "),
        ({"resources": {"trian": {"gpus": 1}}}, "base.yaml: resources.trian: the matrix has no such job"),
    ],
)
def test_what_only_planning_finds_is_named_with_the_file_too(
    write: Callable[..., Path], tiny: Content, base: Content, message: str
) -> None:
    """`sft` cannot be trained on the student's own text; the rest is not there."""
    base = {key: {**tiny.get(key, {}), **value} for key, value in base.items()}
    if "models" in base:
        base["models"]["teacher"] = {"path": "nowhere"}
    with pytest.raises(InputError, match=re.escape(message)):
        make_plan(str(write(base)))

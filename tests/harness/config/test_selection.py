"""`--only` and `--skip`: names, groups, patterns, axes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dskd.errors import InputError
from harness.cli import main
from harness.config.matrix import Matrix
from harness.config.matrix_file import read_matrix, select
from harness.planning.plan import make_plan

Content = dict[str, Any]


@pytest.fixture
def content(tiny: Content) -> Content:
    tiny["data"]["other"] = {"small_world": "teacher", "limit": 24}
    tiny["groups"] = {"soft": ["kd", "gkd"], "students": ["cross"]}
    tiny["methods"] = {"sft": {"axes": []}}
    tiny["pairs"] = [
        {"teacher": "teacher", "student": "same", "methods": ["sft", "soft"]},
        {"teacher": "teacher", "student": "cross", "methods": ["sft"], "data": "other"},
    ]
    tiny["axes"] = {"training.learning_rate": [1e-4, 1e-3]}
    tiny["tasks"] = {"small_math": None, "small_instruct": None}
    tiny["seeds"] = [1, 2]
    return tiny


@pytest.fixture
def matrix(content: Content, write_matrix: Callable[[Any], Path]) -> Matrix:
    return read_matrix(write_matrix(content))


def chosen(matrix: Matrix, only: Sequence[str] = (), skip: Sequence[str] = ()) -> set[str]:
    """The methods of students and the name of a teacher that are left, seed 1 alone."""
    cells, _ = select(matrix, only, "matrix.yaml", skip)
    return {
        f"{cell.trained}/{cell.method}" if cell.student else cell.teacher for cell in cells if cell.seed in {None, 1}
    }


LOW, HIGH = "learning_rate-0.0001", "learning_rate-0.001"
SAME = {"same/sft", f"same/kd+{LOW}", f"same/kd+{HIGH}", f"same/gkd+{LOW}", f"same/gkd+{HIGH}"}


@pytest.mark.parametrize(
    ("only", "skip", "left"),
    [
        ([], [], {"teacher", *SAME, "cross+other/sft"}),
        (["method=soft"], [], SAME - {"same/sft"}),
        (["method=kd"], [], {f"same/kd+{LOW}", f"same/kd+{HIGH}"}),
        (["method=*kd*"], ["learning_rate=1e-4"], {f"same/kd+{HIGH}", f"same/gkd+{HIGH}"}),
        (["learning_rate=0.0001", "method=[kt]*"], [], {f"same/kd+{LOW}", "teacher"}),
        (["student=students"], [], {"teacher", "cross+other/sft"}),
        (["student=cross+other"], [], {"teacher", "cross+other/sft"}),
        (["data=other"], [], {"teacher", "cross+other/sft"}),
        ([], ["data=student", "method=teacher"], {"cross+other/sft"}),
        ([], ["student=cross", "method=soft"], {"teacher", "same/sft"}),
        ([], ["method=soft", "method=s*"], None),
        ([], ["teacher=teacher"], None),
        (["method=sft"], ["seed=1"], set()),
    ],
)
def test_only_and_skip_leave_these(matrix: Matrix, only: list[str], skip: list[str], left: set[str] | None) -> None:
    if left is None:
        with pytest.raises(InputError, match=r"no cell of matrix\.yaml has all of these; fix: leave one out"):
            chosen(matrix, only, skip)
    else:
        assert chosen(matrix, only, skip) == left


def test_tasks_are_skipped_by_name_and_pattern(matrix: Matrix) -> None:
    assert select(matrix, (), "m", ["task=small_math"])[1] == ["small_instruct"]
    assert select(matrix, ["task=small_*"], "m", ["task=*_instruct"])[1] == ["small_math"]
    with pytest.raises(InputError, match=r"--skip task=small_\*: no task of m is left; fix: leave one out"):
        select(matrix, (), "m", ["task=small_*"])


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("only", "method=dskd-*", "--only method=dskd-*: matrix.yaml has no method that fits 'dskd-*'; known: "),
        ("skip", "method=softt", "--skip method=softt: matrix.yaml has no such method; did you mean 'soft'?"),
        ("skip", "student=soft", "--skip student=soft: matrix.yaml has no student in the group 'soft'"),
        ("skip", "learning_rate=1", "no such learning_rate; known: 0.0001, 0.001"),
        (
            "skip",
            "rate=1",
            "is no key=value; fix: use one of the keys teacher, student, method, seed, task, data, learning_rate",
        ),
    ],
)
def test_what_fits_nothing_is_named_with_what_there_is(matrix: Matrix, option: str, text: str, message: str) -> None:
    given = {"only": (), "skip": (), option: [text]}
    with pytest.raises(InputError, match=re.escape(message)):
        select(matrix, given["only"], "matrix.yaml", given["skip"])


def test_plan_takes_skip(content: Content, write_matrix: Callable[[Any], Path], tmp_path: Path) -> None:
    path = str(write_matrix(content))
    arguments = ["plan", "--matrix", path, "--output-dir", str(tmp_path / "run"), "--json"]
    whole = json.loads(CliRunner().invoke(main, arguments, catch_exceptions=False).stdout)
    part = json.loads(CliRunner().invoke(main, [*arguments, "--skip", "method=soft"], catch_exceptions=False).stdout)
    trained = [[job["id"] for job in plan["jobs"] if job["kind"] == "train"] for plan in (whole, part)]
    assert trained[1] == [name for name in trained[0] if "/sft/" in name]
    assert len(trained[0]) == 12


def test_resources_of_jobs_that_are_not_asked_for_are_no_mistake(
    content: Content, write_matrix: Callable[[Any], Path], tmp_path: Path
) -> None:
    content["resources"] = {"teacher-cache": {"minutes": 3}, "train": {"minutes": 4}}
    plan = make_plan(str(write_matrix(content)), output_dir=tmp_path / "run", only=["method=sft"])
    assert "teacher-cache" not in {job.kind for job in plan.jobs.values()}
    assert {job.resources.minutes for job in plan.jobs.values() if job.kind == "train"} == {4}

"""The page on `text`: its first commands run as they are shown, on the matrix above them, and its other blocks are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from dskd.compatibility import texts_of
from dskd.methods import METHODS
from dskd.text import TeacherText, Text
from harness.cli import main
from harness.config.matrix_file import read_matrix
from harness.planning.plan import make_plan
from helpers.paths import ROOT

PAGE = (ROOT / "docs" / "text.md").read_text(encoding="utf-8")
MATRICES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(COMMANDS,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_first_commands_run_and_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.yaml").write_text(MATRICES[0])
    plan, listing, _ = COMMANDS.splitlines()
    planned, listed = (
        CliRunner().invoke(main, shlex.split(line.partition("#")[0])[1:], catch_exceptions=False)
        for line in (plan, listing)
    )
    assert planned.exit_code == listed.exit_code == 0
    said = plan.partition("# ")[2]
    count, names = int(said.split()[0]), re.findall(r"kd[^\s,]*", said)
    assert len(re.findall("^train ", planned.stdout, re.MULTILINE)) == count
    assert all(f"train small-teacher__small-student/{name}/seed1" in planned.stdout for name in names)
    assert names[1:] == ["kd+teacher", "kd+student", "kd+data-0.5-student-0.5"]
    last = listed.stdout.split("\n\n")[-1]
    assert "student  " in last
    assert "minillm" in last


def test_the_nearest_text_is_the_one_that_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("extends: quick\nname: nearest\n" + MATRICES[1])
    matrix = read_matrix(path)
    assert matrix.pairs[0].methods == ["kd+student", "gkd"]
    text = matrix.text_of("gkd")
    assert text is not None
    assert text.shares == {"data": 0.5, "student": 0.5}
    make_plan(str(path), output_dir=tmp_path / "run")


def test_the_options_and_methods_of_the_page_are_those_there_are() -> None:
    teacher = Text.model_validate(yaml.safe_load(MATRICES[2])["text"]).teacher
    assert teacher is not None
    assert teacher.keep == "shortest_right"
    section = PAGE.partition("## `teacher`")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {*TeacherText.model_fields}
    assert texts_of(METHODS["minillm"]) == ["student"]
    assert all("student" not in texts_of(METHODS[name]) for name in ("alm", "multilevel-ot", "sft"))

"""Malformed matrices, through the command line: one line with file, key and fix, exit code 2, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.cli import main

Content = dict[str, Any]
Change = Callable[[Content], Any]

KD = {"teacher": "teacher", "student": "same", "methods": ["kd"]}
RATE = {"low": {"training": {"learning_rate": 1e-4}}, "high": {"training": {"learning_rate": 1e-3}}}


def keys(**changed: Any) -> Change:
    """Keys in place of those of the tiny matrix."""
    return lambda content: {**content, **changed}


# The matrix, and how the line goes on after `error: matrix.yaml`.
MALFORMED: dict[str, tuple[Change, str]] = {
    "a bracket that is not closed": (
        lambda _: "name: own\nseeds: [1, 2\ntasks: {}\n",
        ":3: is not valid YAML: expected ',' or ']', but got ':'; fix: correct that line or the one before",
    ),
    "a tab": (
        lambda _: "name: own\npairs:\n\t- {}\n",
        ":3: is not valid YAML: found character '\\t' that cannot start any token; fix: indent with spaces",
    ),
    "a key twice": (
        lambda _: "name: own\nseeds: [1]\nseeds: [2]\n",
        ":3: is not valid YAML: the key 'seeds' is given twice; fix: keep one",
    ),
    "a list in place of keys": (
        lambda _: "- a\n- b\n",
        ": is not a mapping of keys; fix: start from one of `harness list matrices`",
    ),
    "a date": (keys(description=date(2024, 1, 1)), ": description: a date is no value of a matrix; fix: "),
    "an unknown key": (keys(axis={}), ": axis: unknown key; did you mean 'axes'? (known: "),
    "an unknown key of a pair": (keys(pairs=[{**KD, "method": []}]), ": pairs.0.method: unknown key; did you mean 'methods'?"),
    "text for a number": (keys(seeds=["one"]), ": seeds.0: input should be a valid integer"),
    "a missing key": (lambda content: {k: v for k, v in content.items() if k != "training"}, ": training: is missing; fix: add it"),
    "no pairs": (keys(pairs=[]), ": pairs: list should have at least 1 item"),
    "an unknown model": (keys(pairs=[{**KD, "student": "sme"}]), ": pairs.0.student: no model 'sme'; did you mean 'same'?"),
    "an unknown group": (
        keys(groups={"rivals": ["gkd"]}, pairs=[{**KD, "methods": "rivalz"}]),
        ": pairs.0.methods: no method 'rivalz'; did you mean 'rivals'?",
    ),
    "an unknown member of a group": (
        keys(groups={"rivals": ["sft", "gdk"]}, pairs=[{**KD, "methods": "rivals"}]),
        ": groups.rivals.1: no model, method, data set, task or group 'gdk'; did you mean 'gkd'?",
    ),
    "a model in place of a method of a group": (
        keys(groups={"rivals": ["sft", "cross"]}, pairs=[{**KD, "methods": "rivals"}]),
        ": groups.rivals.1: no method 'cross'; known: ",
    ),
    "a group with a method's name": (
        keys(groups={"kd": ["sft"]}),
        ": groups.kd: the name is that of a method; fix: give the group another name",
    ),
    "a group with a model's name": (
        keys(groups={"same": ["sft"]}),
        ": groups.same: the name is that of models.same; fix: give the group another name",
    ),
    "groups that hold each other": (
        keys(groups={"a": ["sft", "b"], "b": ["a"]}),
        ": groups.a: goes round in a circle (a -> b -> a); fix: leave one of these out",
    ),
    "an empty group": (keys(groups={"none": []}), ": groups.none: has no names; fix: give one or more"),
    "a group that is no list": (keys(groups={"rivals": "gkd"}), ": groups.rivals: input should be a valid list, not 'gkd'"),
    "axes that are a list": (keys(axes=["rate"]), ": axes: is no mapping of axes, but ['rate']; fix: write NAME: "),
    "an empty axis": (keys(axes={"rate": {}}), ": axes.rate: has no values; fix: give a list of values"),
    "an axis with a key's name": (
        keys(axes={"seed": {"a": {}}}),
        ": axes.seed: every matrix has a key 'seed'; fix: call the axis otherwise",
    ),
    "settings on the axis of data": (
        keys(axes={"data": {"a": {"data": "student"}}}),
        ": axes.data: is no list of data sets, but {'a': {'data': 'student'}}; fix: write data: [NAME, NAME]",
    ),
    "an unknown data set on an axis": (
        keys(axes={"data": ["student", "studnet"]}),
        ": axes.data.1: no data set 'studnet'; did you mean 'student'?",
    ),
    "data on another axis": (
        keys(axes={"text": {"a": {"training": {"data": "student"}}}}),
        ": axes.text.a.training.data: only the axis `data` has training sets; fix: write axes: {data: [NAME, NAME]}",
    ),
    "max_length on an axis": (
        keys(axes={"training.max_length": [9]}),
        ": axes.training.max_length: `max_length` is the same for all methods of a matrix; fix: ",
    ),
    "an unknown option on an axis": (
        keys(pairs=[KD], axes={"rate": {"low": {"training": {"learning_rat": 1}}}}),
        ": axes.rate.low.training.learning_rat: unknown key; did you mean 'learning_rate'?",
    ),
    "a value out of range on an axis": (
        keys(pairs=[KD], axes={"training.steps": [4, 0]}),
        ": axes.training.steps.1: input should be greater than 0, not 0",
    ),
    "an option of trainings without its place": (
        keys(axes={"learning_rate": [1e-3]}),
        ": axes.learning_rate: is an option of trainings; fix: write training.learning_rate",
    ),
    "two axes with a value of one name": (
        keys(axes={"rate": RATE, "other": {"low": {"temperature": 1.0}}}),
        ": axes.other.low: the axis 'rate' has a value of that name too; fix: rename one",
    ),
    "two axes of one setting": (
        keys(pairs=[KD], axes={"length": {"short": {"training": {"epochs": 1}}}, "training.steps": [3]}),
        ": axes.training.steps.0: the axis 'length' has training.epochs; fix: join the two axes to one",
    ),
    "two values that change nothing": (
        keys(axes={"text": {"a": {}, "b": None}}),
        ": axes.text: two values change nothing; fix: leave one out",
    ),
    "a method of the name that axes make": (
        keys(pairs=[KD], axes={"rate": RATE}, methods={"kd+low": {"method": "kd"}}),
        ": methods.kd+low: the axes make a method of that name; fix: rename it",
    ),
    "a method on an unknown axis": (
        keys(axes={"rate": RATE}, methods={"kd": {"axes": ["rat"]}}),
        ": methods.kd.axes.0: no axis 'rat'; did you mean 'rate'?",
    ),
    "an exclude that fits nothing": (
        keys(exclude=[{"method": "kd", "student": "cross"}]),
        ": exclude.0: no cell has all of these; fix: leave out a key, or the entry",
    ),
    "an exclude with an unknown value": (keys(exclude=[{"method": "kdd"}]), ": exclude.0.method: no such method; did you mean 'kd'?"),
    "an exclude with an unknown axis": (keys(exclude=[{"rate": "low"}]), ": exclude.0.rate: unknown key; known: data, method, "),
    "an exclude that leaves nothing": (keys(exclude=[{"teacher": "*"}]), ": exclude: leaves no student to train; fix: leave out an entry"),
    "an include that adds nothing": (keys(include=[KD | {"method": "kd"}]), ": include.0.methods: unknown key; did you mean 'method'?"),
    "an include that is there": (
        keys(include=[{"teacher": "teacher", "student": "same", "method": "kd"}]),
        ": include.0: adds nothing to `pairs` and `seeds`; fix: leave it out",
    ),
    "an include without its method": (
        keys(include=[{"teacher": "teacher", "student": "same", "seed": 9}]),
        ": include.0.method: is missing; fix: add it",
    ),
    "an include with an unknown value of an axis": (
        keys(axes={"rate": RATE}, include=[{"teacher": "teacher", "student": "same", "method": "gkd", "rate": "lo"}]),
        ": include.0.rate: no such value of 'rate'; did you mean 'low'?",
    ),
    "resources below zero": (
        keys(resources={"train": {"gpus": -1}}),
        ": resources.train.gpus: input should be greater than or equal to 0, not -1",
    ),
    "an unknown key of resources": (keys(resources={"train": {"gpu": 1}}), ": resources.train.gpu: unknown key; did you mean 'gpus'?"),
    "resources of no kind of job": (keys(resources={"trian": {"gpus": 1}}), ": resources.trian: the matrix has no such job; did you mean 'train'?"),
    "a matrix that extends itself": (
        keys(extends=["quick", "matrix.yaml"]),
        ": extends.1: goes round in a circle (matrix.yaml -> matrix.yaml); fix: remove one of these keys",
    ),
    "a matrix that extends none": (
        keys(extends=["quick", "quik"]),
        ": extends.1: quik: no such matrix file and no matrix of that name ships; did you mean 'quick'?",
    ),
    "a base twice": (keys(extends=["quick", "quick"]), ": extends: quick is given twice; fix: give each once"),
    "a variable that is not set": (
        keys(models={"teacher": {"path": "${NOWHERE}"}}),
        ": models.teacher.path: the variable NOWHERE is not set; fix: give --set NOWHERE=VALUE, or set it in the environment",
    ),
}  # fmt: skip


def test_there_are_more_than_twenty() -> None:
    assert len(MALFORMED) >= 20


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("what", MALFORMED)
def test_it_is_one_line_with_file_key_and_fix_and_nothing_is_written(
    what: str, command: str, tiny: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = MALFORMED[what]
    content = change(tiny)
    Path("matrix.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(main, [command, "--matrix", "matrix.yaml"], catch_exceptions=False)
    assert result.stderr.startswith(f"error: matrix.yaml{message}")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert any(hint in result.stderr for hint in ("; fix: ", "; did you mean ", "; known: ", " should "))
    assert sorted(tmp_path.rglob("*")) == before

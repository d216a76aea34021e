"""`NAME:validation`: a task's validation documents under a name of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from dskd.errors import InputError
from harness import tasks
from harness.config.settings import TaskName
from harness.tasks.task import Task

OWN = """
from harness.metrics.sample import SampleScore, score_each
from harness.tasks import Metric, Task


class Capitals(Task):
    name, version, max_new_tokens = "capitals", "1", 8
    metrics = (Metric("exact_match"),)
    validation = "one more country"

    def documents(self):
        return [{"id": "France", "capital": "Paris"}]

    def validation_documents(self):
        return [{"id": "Peru", "capital": "Lima"}]

    def prompt(self, doc):
        return doc["id"]

    def reference(self, doc):
        return doc["capital"]

    def score_outputs(self, docs, outputs, advance):
        return score_each(lambda doc, output: SampleScore({"exact_match": 100.0 * (output == doc["capital"])}, {}, "scored"), docs, outputs, advance)
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    path = tmp_path / "capitals.py"
    path.write_text(OWN)
    return f"{path}:Capitals"


def test_validation_documents_have_a_task_of_their_own_name(own: str) -> None:
    test, validation = tasks.load(own), tasks.load(f"{own}:validation")
    assert [doc["id"] for doc in test.docs()] == ["France"]
    assert [doc["id"] for doc in validation.docs()] == ["Peru"]
    assert [doc["id"] for doc in validation.as_chat().docs()] == ["Peru"]
    assert validation.name == f"{own}:validation"
    assert test.name == "capitals"
    assert validation.score(validation.docs()[0], "Lima").scores == {"exact_match": 100.0}
    assert validation.identity() == test.identity()  # the names tell them apart


def test_a_task_without_validation_documents_names_the_one_that_stands_in_or_all() -> None:
    for name, other in (("vicuna", "dolly"), ("humaneval", "mbpp"), ("svamp", "gsm8k")):
        with pytest.raises(InputError) as error:
            tasks.load(f"{name}:validation")
        assert str(error.value) == (
            f"task {name}:validation: {name} has no validation documents; fix: choose settings by another's: {other}:validation"
        )
    able = ", ".join(f"{name}:validation" for name in tasks.names() if tasks.load(name).has_validation)
    with pytest.raises(InputError, match=f"ifeval has no validation documents; .* another's: {able}$"):
        tasks.load("ifeval:validation")


def test_what_stands_in_for_a_task_has_validation_documents_and_tests_none_of_its_items() -> None:
    stands_in = {name: tasks.load(name).validation_from for name in tasks.names()}
    assert stands_in["humaneval"] == stands_in["humaneval_plus"] == "mbpp"
    assert stands_in["mbpp_plus"] is None  # which has some of mbpp's validation problems
    for name, other in stands_in.items():
        assert other is None or (tasks.load(other).has_validation and not tasks.load(name).has_validation)


def test_a_matrix_takes_the_name(own: str) -> None:
    check = TypeAdapter(TaskName).validate_python
    for name in (
        "gsm8k:validation",
        f"{own}:validation",
        own,
        "gsm8k",
        "lm_eval/arc_easy",
        "lm_eval/arc_easy:validation",
    ):
        assert check(name) == name
    for name in ("gsm8k:test", "lm_eval/arc_easy:test", "gsm8k:validation:validation"):
        with pytest.raises(ValidationError):
            check(name)


@pytest.mark.parametrize("name", [name for name in tasks.names() if tasks.load(name).has_validation])
def test_no_validation_document_is_in_the_test_set(name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    test, validation = tasks.load(name), tasks.load(f"{name}:validation")
    if not validation.data_is_here:
        pytest.skip(f"{name}:validation: its data is nowhere here")
    ids = [doc["id"] for doc in validation.docs()]
    assert len(set(ids)) == len(ids) > 0
    assert not set(ids) & {doc["id"] for doc in test.docs()}
    assert not {test.prompt(doc) for doc in validation.docs()} & {test.prompt(doc) for doc in test.docs()}
    for doc in validation.docs(3):
        assert validation.prompt(doc)
        if not test.runs_code:
            assert validation.score(doc, validation.reference(doc)).scores[test.metrics[0].name] == 100.0


@pytest.mark.parametrize("name", tasks.names())
def test_a_task_with_validation_documents_says_what_they_are(name: str) -> None:
    task = tasks.load(name)
    assert (task.validation is not None) == task.has_validation


def test_validation_items_are_as_many_as_is_said(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    said = {name: tasks.load(name).validation for name in tasks.names()}
    numbers = {name: re.match(r"\d+ ", text) for name, text in said.items() if text and "generated" not in text}
    assert set(numbers) == {"aime2025", "dolly", "gsm8k", "gsm8k_5shot", "gsm8k_cot_8shot", "math500", "mbpp"}
    del numbers["math500"]  # whose training set is not here; below is one of its size
    for name, number in numbers.items():
        assert number is not None, name
        assert len(tasks.load(f"{name}:validation").docs()) == int(number[0]), name


def test_data_of_validation_items_that_is_not_here_is_the_error_of_absent_test_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.delenv("HARNESS_HUB", raising=False)
    for name in ("dolly", "gsm8k", "math500"):
        task = tasks.load(f"{name}:validation")
        assert not task.data_is_here
        path = task.data_files[0].path
        with pytest.raises(InputError) as error:
            task.docs()
        assert str(error.value).startswith(
            f"{tmp_path / path}: no such file; fix: set HARNESS_DATA to the folder that holds {path}"
        )


def test_problems_of_math_are_from_the_whole_training_set_and_another_file_is_another_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.delenv("HARNESS_HUB", raising=False)
    assert tasks.load("math500").identity() == {}  # the test set's, which is pinned
    rows = [
        {
            "problem": f"What is {n} + 1?",
            "solution": f"${n + 1}$",
            "answer": str(n + 1),
            "subject": "Algebra",
            "level": 1,
        }
        for n in range(12_000)
    ]

    def read(rows: list[dict[str, object]]) -> Task:
        (tmp_path / "math").mkdir(exist_ok=True)
        (tmp_path / "math" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return type(tasks.load("math500"))().for_validation()

    assert type(tasks.load("math500"))().for_validation().identity() == {"documents": None}
    task = read(rows)
    assert [doc["id"] for doc in task.docs()] == [f"train/{n}" for n in range(0, 12_000, 24)]
    doc = task.docs()[1]
    assert task.score(doc, task.reference(doc)).scores["equivalent"] == 100.0
    first = task.identity()["documents"]
    assert first == read(rows).identity()["documents"]
    assert first != read([{**rows[0], "answer": "2"}, *rows[1:]]).identity()["documents"]

"""`NAME:validation`: a task's validation documents under a name of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from dskd.errors import InputError
from harness import tasks
from harness.config.settings import TaskName

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


def test_a_task_without_validation_documents_names_those_that_have_some() -> None:
    with pytest.raises(InputError, match="vicuna has no validation documents; fix: choose settings on another's"):
        tasks.load("vicuna:validation")


def test_a_matrix_takes_the_name(own: str) -> None:
    check = TypeAdapter(TaskName).validate_python
    for name in ("gsm8k:validation", f"{own}:validation", own, "gsm8k", "lm_eval/arc_easy"):
        assert check(name) == name
    for name in ("gsm8k:test", "lm_eval/arc_easy:validation", "gsm8k:validation:validation"):
        with pytest.raises(ValidationError):
            check(name)


@pytest.mark.parametrize("name", [name for name in tasks.names() if tasks.load(name).has_validation])
def test_no_validation_document_is_in_the_test_set(name: str, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", str(real_data))
    test, validation = tasks.load(name), tasks.load(f"{name}:validation")
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

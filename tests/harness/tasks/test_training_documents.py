"""Rows of training sets as documents of the tasks that score them: what the teacher wrote is right or wrong by the task's own scorer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import tasks
from harness.smallworld.world import write_world
from harness.steps.kept_responses import scorers_of


def right(name: str, row: dict[str, Any], output: str) -> bool | None:
    """Whether an output is right for a row; None where the row does not say."""
    task = tasks.load(name)
    document = task.training_document(row)
    return None if document is None else task.is_right(task.score(document, output, allow_code_execution=True))


@pytest.fixture(scope="module")
def student_rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return [json.loads(line) for line in (folder / "train" / "student.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["small_instruct", "small_math", "small_code"])
def test_the_small_world_s_own_answers_are_right_where_it_says_so(
    name: str, student_rows: list[dict[str, Any]]
) -> None:
    """Against the world's own word, in the column `right`: 40 % of its answers are wrong."""
    rows = [row for row in student_rows if row["task"] == name][:30]
    assert {row["right"] for row in rows} == {True, False}
    for row in rows:
        assert right(name, row, row["output"]) == row["right"], row
        assert right(name, row, row["gold"]) is True
    other = next(row for row in student_rows if row["task"] != name)
    assert right(name, other, other["output"]) is None


@pytest.mark.parametrize("column", ["answer", "gold", "output", "response"])
def test_a_worked_answer_is_found_in_any_of_its_columns(column: str) -> None:
    row = {"question": "2 + 3?", column: "2 + 3 = 5\n#### 5"}
    assert right("gsm8k", row, " It is 5.\n#### 5") is True
    assert right("gsm8k", row, "#### 6") is False
    assert right("gsm8k", {"question": "2 + 3?", column: "five"}, "#### 5") is None


def test_training_rows_of_gsm8k_are_its_documents(real_data: Path) -> None:
    path = real_data / "gsm8k" / "train.jsonl"
    if not path.is_file():
        pytest.skip("no training rows of GSM8K here")
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(next(lines)) for _ in range(50)]
    for row, other in zip(rows, [*rows[1:], rows[0]], strict=True):
        assert right("gsm8k", row, row["answer"]) is True
        same = row["answer"].split("####")[1] == other["answer"].split("####")[1]
        assert right("gsm8k", row, other["answer"]) is same


def test_programs_and_final_answers_are_scored_by_rows_in_the_form_of_their_data() -> None:
    tests = "def check(candidate):\n    assert candidate(2) == 4\n"
    row = {"prompt": 'def f(x):\n    """Twice."""\n', "entry_point": "f", "test": tests}
    assert right("humaneval", row, "    return 2 * x\n") is True
    assert right("humaneval", row, "    return 3 * x\n") is False
    assert right("humaneval", {"prompt": "def f(x):\n"}, "    return 2 * x\n") is None
    row = {"text": "Twice.", "code": "def f(x):\n    return 2 * x", "test_list": ["assert f(2) == 4"]}
    assert right("mbpp", row, "def f(x):\n    return x + x\n[DONE]") is True
    assert right("mbpp", row, "def f(x):\n    return x\n[DONE]") is False
    row = {"problem": "Half of 1?", "answer": "\\frac{1}{2}", "solution": "It is $\\boxed{\\frac{1}{2}}$."}
    assert right("math500", row, "So it is $\\boxed{0.5}$.") is True
    assert right("math500", row, "So it is $\\boxed{2}$.") is False


def test_every_task_that_says_so_scores_a_document_of_its_own_as_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tasks.names():
        task = tasks.load(name)
        if not task.scores_training_rows:
            assert task.training_document({"prompt": "a", "output": "b"}) is None
            with pytest.raises(Exception, match="does not score rows of a training set; fix: one of"):
                scorers_of([name])
        elif task.data_is_here:
            document = task.docs(1)[0]
            if name.startswith("small_"):
                continue  # its test set is in none of its training sets
            assert right(name, document, task.reference(document)) is True, name

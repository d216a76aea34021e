"""What a record says of test items in training data, planned from a matrix and counted in an evaluation's job."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import tasks
from harness.planning.plan import make_plan
from harness.runs.job_context import JobContext, ProgressChannel
from harness.steps.base import TrainingSource
from harness.steps.contamination import count_contamination
from harness.steps.data import FileExamples
from helpers.plan_world import write_folders


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A training set with the second question of small_math, its answer included, and one of its own."""
    doc = tasks.load("small_math").docs(2)[1]
    rows = [{"q": "How many?", "a": "4"}, {"q": doc["question"], "a": doc["answer"]}]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def source(file: Path | str, of: str = "student", data: str = "own", limit: Any = None) -> dict[str, Any]:
    examples = FileExamples(file=file, sha256="", prompt="Q: {q}", output="{a}")
    return of, TrainingSource(data, examples, limit)


@pytest.fixture
def counted(tmp_path: Path) -> Callable:
    """The entries of small_math's first `limit` items, against sources."""

    def count(sources: list[dict[str, Any]] | None, limit: int = 5) -> list[Any] | None:
        job = JobContext(tmp_path / "run", "eval", [], ProgressChannel())
        return count_contamination(job, sources, {"small_math": ("small_math", limit)})["small_math"]

    return count


def test_items_are_counted_in_each_training_set(counted: Callable, train: Path) -> None:
    first, cut = counted([source(train), source(train, of="teacher", data="cut", limit=1)])
    assert (first.of, first.data, first.items, first.examples, first.n) == ("student", "own", 5, 2, 13)
    assert (first.exact, first.exact_with_answer) == (1, 1)
    assert first.ngram >= 1
    assert (cut.of, cut.data, cut.examples, cut.exact, cut.ngram) == ("teacher", "cut", 1, 0, 0)
    (fewer,) = counted([source(train)], limit=1)  # the items that are evaluated
    assert (fewer.items, fewer.exact) == (1, 0)


def test_a_pair_is_counted_once_in_a_run_and_again_when_its_file_changes(
    counted: Callable, train: Path, tmp_path: Path
) -> None:
    counted([source(train)])
    (kept,) = (tmp_path / "run/.harness/overlap").iterdir()
    changed = json.loads(kept.read_text()) | {"exact": 3}
    kept.write_text(json.dumps(changed))
    assert counted([source(train)])[0].exact == 3
    assert counted([source(train, of="teacher")])[0].exact == 3  # the same file, whoever read it
    train.write_text(train.read_text().splitlines()[0] + "\n")
    assert counted([source(train)])[0].exact == 0


def test_what_is_not_known_or_cannot_be_read_is_null_with_a_reason_and_no_error(
    counted: Callable, train: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = "student", TrainingSource(None, reason="m is a model folder from elsewhere")
    absent = source(train.parent / "absent.jsonl")
    unknown, gone = counted([elsewhere, absent])
    assert (unknown.data, unknown.exact, unknown.reason) == (None, None, "m is a model folder from elsewhere")
    assert (gone.data, gone.items, gone.reason) == ("own", None, "its file could not be read when this was evaluated")
    assert "absent.jsonl" in capsys.readouterr().out  # in the log, as records hold no paths
    assert counted([]) == []


def sources_of(plan: Any, cell: str) -> list[tuple[str, str]]:
    return [(of, source.data) for of, source in plan.jobs[f"evaluate:{cell}"].step.training_sources]


def test_a_cell_s_sources_are_those_of_its_models_from_the_start(
    tiny: dict[str, Any], write_matrix: Callable, tmp_path: Path
) -> None:
    tiny["data"]["more"] = {"small_world": "pretraining"}
    tiny["models"]["same"]["training"] = [{"data": "more", "steps": 1, "batch_size": 2, "max_length": 200}]
    tiny["pairs"][0]["methods"].append("seqkd")
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    own = [("student", "more"), ("student", "student")]
    assert sources_of(plan, "teacher/teacher") == [("teacher", "student")]
    assert sources_of(plan, "teacher__same/sft/seed1") == own  # it never meets the teacher
    assert sources_of(plan, "teacher__same/kd/seed1") == [*own, ("teacher", "student")]
    answered = ("student", "student, answered by teacher")
    assert sources_of(plan, "teacher__same/seqkd/seed1") == [own[0], answered, ("teacher", "student")]
    sources = [source for _, source in plan.jobs["evaluate:teacher__same/seqkd/seed1"].step.training_sources]
    assert sources[0].limit is None
    assert sources[1].examples.path(plan.root).name == "answers.jsonl"
    assert [source.limit for source in sources] == [None, None, 24]


def test_first_layers_learned_what_their_model_did_and_a_folder_nobody_knows_what(
    tiny: dict[str, Any], write_matrix: Callable, tmp_path: Path
) -> None:
    tiny["models"]["same"] = {"layers_of": "teacher", "layers": 1, "training": []}
    tiny["pairs"] = tiny["pairs"][:1]
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    # What it learned as a part of the teacher, and then as a student: the same examples, counted once.
    assert sources_of(plan, "teacher__same/sft/seed1") == [("student", "student")] * 2
    write_folders(tmp_path / "folders")
    tiny["models"]["teacher"] = {"path": str(tmp_path / "folders/teacher")}
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run", only=["method=kd"])
    reason = "teacher is a model folder from elsewhere: what it was trained on is not known here"
    found = plan.jobs["evaluate:teacher__same/kd/seed1"].step.training_sources
    assert [(of, source.data, source.reason) for of, source in found] == [
        ("student", None, reason),
        ("student", "student", None),
        ("teacher", None, reason),
    ]


def test_the_same_set_is_counted_once_for_each_model(counted: Any, train: Any) -> None:
    twice = counted([source(train), source(train), source(train, of="teacher")])
    assert [entry.of for entry in twice] == ["student", "teacher"]


def test_records_of_one_matrix_keep_their_identity(
    tiny: dict[str, Any], write_matrix: Callable, tmp_path: Path
) -> None:
    """What is only reported about a score is no part of what it was made from."""
    plan = make_plan(str(write_matrix(tiny)), output_dir=tmp_path / "run")
    (output,) = plan.jobs["evaluate:teacher__same/sft/seed1"].step.outputs
    assert "training_sources" not in output.fingerprint.text
    assert "answered by" not in output.fingerprint.text

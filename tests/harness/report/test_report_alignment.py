"""How tokenizers align, read off a training set that was really prepared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dskd.data.preparation import prepare_dataset
from harness.report.document import make_document
from harness.runs.identity import Identity
from harness.smallworld import write_world
from helpers.written_runs import write_run

DATA = {"student_tokenizer": "sentencepiece", "teacher_tokenizer": "bytelevel"}
TEACHER = {"name": "teacher"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose records name a training set and a teacher, and whose artifacts hold both."""
    folder = tmp_path_factory.mktemp("alignment")
    write_world(folder / "world")
    tokenizers = folder / "world" / "tokenizers"
    examples = folder / "examples.jsonl"
    rows = [{"prompt": "Name it.", "output": text} for text in (" has 2 eggs.", " Zoë has 2 eggs.")]
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = write_run(folder / "run", methods=["kd"])
    training = run / "cells/teacher__student/kd/seed1/train"
    record = json.loads((training / "result.json").read_text())
    record["identity"] = Identity.of({"data": DATA, "teacher": TEACHER}).model_dump()
    (training / "result.json").write_text(json.dumps(record))
    shutil.copytree(tokenizers / "sentencepiece", training / "model", dirs_exist_ok=True)
    teacher = run / "artifacts/models" / Identity.of(TEACHER).short / "model"
    shutil.copytree(tokenizers / "bytelevel", teacher)
    prepared = run / "artifacts/data" / Identity.of(DATA).short / "dataset"
    prepare_dataset(examples, prepared, student=training / "model", teacher=teacher)
    return run


def test_counts_are_the_preparations_and_the_first_divergence_is_the_responses(run: Path) -> None:
    (found,) = make_document([run])[0]["alignment"]
    (report,) = run.glob("artifacts/data/*/dataset/report.json")
    prepared = json.loads(report.read_text())
    for name in ("aligned", "aligned_share", "shared_vocabulary", "student_tokens", "teacher_tokens"):
        assert found[name] == prepared[name]
    assert (found["examined"], found["wholly_aligned"], found["first_divergence"]) == (2, 1, 0)


def test_the_response_that_diverges_is_shown_in_the_tokens_of_both(run: Path) -> None:
    (found,) = make_document([run])[0]["alignment"]
    (shown,) = found["examples_shown"]
    student, teacher = shown["student"], shown["teacher"]
    assert "".join(text for text, _ in teacher[:-1]) == " Zoë has 2 eggs."
    assert [text for text, aligned in teacher if not aligned] == [" Zoë"]
    assert [text for text, aligned in student if not aligned] == [" Zo", "\\xc3", "\\xab"]
    assert (student[-1], teacher[-1]) == (["</s>", True], ["<|endoftext|>", True])


def test_without_the_tokenizers_the_counts_remain(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run").glob("**/tokenizer_config.json"):
        path.unlink()
    (found,) = make_document([tmp_path / "run"])[0]["alignment"]
    assert found["aligned"] > 0
    assert found["examples_shown"] == []

"""The step that keeps what a served teacher's local copy answers to the probe, or why it was not asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dskd.errors import InputError
from dskd.modeling.loading import load_tokenizer
from dskd.teachers.probe.reference import read_reference, write_reference
from dskd.teachers.probe.texts import TEXTS, question_of
from dskd.teachers.questions import Question
from harness.runs.job_context import JobContext, ProgressChannel
from harness.steps import teacher_reference
from harness.steps.base_model import absent_model
from harness.steps.create_model import add_bos_token
from harness.steps.teacher_reference import TeacherReference, not_comparable
from helpers.llama_folders import change_weights, write_llama


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "teacher", shard="20KB")


def _questions(folder: Path) -> list[Question]:
    tokenizer = load_tokenizer(folder)
    asked = (question_of(tokenizer, text, 64, len(tokenizer)) for text in TEXTS)
    return [question for question in asked if question is not None]


def _run(folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the step leaves for the probe to read."""
    step = TeacherReference(teacher=absent_model("teacher", folder))
    monkeypatch.setattr(type(step.teacher), "path", lambda *_: folder)
    questions = _questions(folder)
    job = JobContext(root, step.folder, step.outputs, ProgressChannel())
    job.store.output(step.folder).begin(step.kind, step.title, step.fingerprint)
    step.run(job)
    assert step.path(root).is_file()
    return read_reference(step.path(root), questions)


def test_the_answers_of_a_whole_model_are_kept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = _run(folder, tmp_path / "run", monkeypatch)
    assert [each.hidden.shape[1] for each in known] == [32] * len(TEXTS)
    for each in known:
        assert each.top_log_probabilities.exp().sum(-1).max() <= 1 + 1e-5


def test_texts_begin_as_the_trainings_tokenizer_begins_them(folder: Path, tmp_path: Path) -> None:
    """`add_bos_token: true` gives a training another tokenizer than that of the teacher's folder."""
    own = shutil.copytree(folder, tmp_path / "tokenizer", ignore=shutil.ignore_patterns("*.safetensors*"))
    settings = json.loads((own / "tokenizer_config.json").read_text())
    (own / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": settings["eos_token"]}))
    add_bos_token(own)
    questions = _questions(own)
    assert questions[0].ids[1:] == _questions(folder)[0].ids[: len(questions[0].ids) - 1]
    write_reference(folder, tmp_path / "with.safetensors", tokenizer=own)
    assert len(read_reference(tmp_path / "with.safetensors", questions)) == len(questions)
    write_reference(folder, tmp_path / "without.safetensors")
    with pytest.raises(InputError, match="made of other texts than the probe asks"):
        read_reference(tmp_path / "without.safetensors", questions)


def test_a_folder_with_the_head_alone_is_no_copy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    for shard in shards[:-1]:
        shard.unlink()
    reason = _run(folder, tmp_path / "run", monkeypatch)
    assert shards[0].name in reason or "is not there" in reason or "missing" in reason


def test_a_file_without_the_layers_is_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_llama(tmp_path / "teacher")
    change_weights(folder, lambda weights: {name: weights[name] for name in weights if ".layers." not in name})
    reason = _run(folder, tmp_path / "run", monkeypatch)
    assert isinstance(reason, str)
    assert "layers" in reason


def test_a_model_that_does_not_fit_into_memory_is_not_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not_comparable(folder) is None
    monkeypatch.setattr(teacher_reference.psutil, "virtual_memory", lambda: SimpleNamespace(available=100_000))
    reason = not_comparable(folder)
    assert reason is not None
    assert "of memory in float32" in reason

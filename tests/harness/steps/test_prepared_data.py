"""The step that prepares a training set says how far it is; what is left out is printed where the user looks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.cli.run import print_left_out
from harness.runs.job_context import JobContext, ProgressChannel
from harness.runs.job_spec import PROGRESS_DESCRIPTOR
from harness.steps.data import FileExamples, PreparedData
from harness.steps.tokenizers import TokenizerFiles
from helpers.tiny_tokenizers import sentencepiece


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[JobContext, list[dict[str, Any]]]:
    """A finished job, and the events that it sent."""
    rows = [{"prompt": f"The fox {k}\n", "output": "is green" + " so" * 200 * (k in {1, 7})} for k in range(2500)]
    rows[5]["output"] = "\x1b[2Jgreen</s>"
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sentencepiece().save_pretrained(tmp_path / "model")
    read, write = os.pipe()
    monkeypatch.setenv(PROGRESS_DESCRIPTOR, str(write))
    step = PreparedData(
        title="prepare train",
        examples=FileExamples(file=tmp_path / "train.jsonl", sha256=""),
        student_tokenizer=TokenizerFiles(folder=tmp_path / "model", files={}),
        max_length=100,
    )
    job = JobContext(tmp_path / "run", step.folder, step.outputs, ProgressChannel())
    job.store.output(step.folder).begin(step.kind, step.title, step.fingerprint)
    step.run(job)
    os.close(write)
    with os.fdopen(read) as events:
        return job, [json.loads(event) for event in events]


def test_progress_is_of_examples(prepared: tuple[JobContext, list[dict[str, Any]]]) -> None:
    _, events = prepared
    assert events[-1] == {"event": "progress", "stage": "preparing examples", "done": 2500, "total": 2500}
    assert events[0]["done"] == 2000


def test_what_was_left_out_is_printed_with_its_lines(
    prepared: tuple[JobContext, list[dict[str, Any]]], capsys: pytest.CaptureFixture[str]
) -> None:
    job, _ = prepared
    planned = SimpleNamespace(kind="data", title="prepare train", folder=job.folder)
    plan: Any = SimpleNamespace(jobs={"data": planned})
    capsys.readouterr()
    print_left_out(plan)
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == (
        "prepare train: left out 3 of 2500 examples (2 longer than max_length for the student, 1 whose response spells a special "
        "token)"
    )
    assert printed[1].startswith("  line 2, longer than max_length for the student: The fox 1 is green so so")
    assert printed[2].startswith("  line 8, longer than max_length for the student: The fox 7 is green so so")
    assert printed[3] == "  line 6, whose response spells a special token: The fox 5 \\x1b[2Jgreen</s>"
    report = job.folder / "dataset" / "report.json"
    assert printed[4:] == [f"  counts and lines: {report}"]
    # A report of an older version has the counts alone.
    old = {key: value for key, value in json.loads(report.read_text()).items() if key != "left_out"}
    report.write_text(json.dumps(old))
    print_left_out(plan)
    assert capsys.readouterr().err.splitlines() == [printed[0], printed[4]]

"""Students as trainings leave them, each made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import dskd
from harness.runs.identity import Identity
from harness.runs.records import Cost, Counts, DataOverlap, MetricValue, Record, RecordCell
from harness.runs.store import Manifest, write_text_atomic
from harness.steps.create_model import new_model
from helpers.stored_runs import ENVIRONMENT
from helpers.tiny_tokenizers import LINES, byte_level, sentencepiece

CHAT = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# Heads of 32 numbers: vLLM on a CPU has no smaller ones.
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student with another vocabulary, both with a chat template, and a training file."""
    folder = tmp_path_factory.mktemp("publish-world")
    for seed, (name, tokenizer) in enumerate({"teacher": byte_level(), "cross": sentencepiece()}.items()):
        tokenizer.chat_template = CHAT.replace("<|end|>", tokenizer.eos_token)
        tokenizer.save_pretrained(folder / "tokenizers" / name)
        new_model(CONFIG, folder / "tokenizers" / name, seed, folder / name)
    rows = [{"prompt": line[:8], "output": line[8:24]} for line in LINES]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def trained(world: Path, output: Path, **changes: Any) -> Path:
    """A student that was trained into `output`; its model's folder."""
    asked: dict[str, Any] = {
        "teacher": world / "teacher",
        "student": world / "cross",
        "dataset": world / "train.jsonl",
        "method": "dskd-v2-eta",
        "steps": 2,
        "batch_size": 4,
        "progress": False,
    }
    dskd.distill(**(asked | changes), output=output)
    return output / "model"


@pytest.fixture(scope="session")
def student(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained on whole prompts."""
    return trained(world, tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="session")
def chat_student(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained in its chat template."""
    data = [{"instruction": f"Say {k}", "output": f"It is {k}."} for k in range(4)]
    template = {"kind": "chat", "system": "Be brief."}
    return trained(world, tmp_path_factory.mktemp("chat"), dataset=data, template=template)


@pytest.fixture(scope="session")
def adapted_student(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that was trained as an adapter."""
    output = tmp_path_factory.mktemp("adapted")
    folder = trained(world, output, lora={"rank": 2}, learning_rate=1e-2)
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    return folder


def record(method: str, seed: int | None, identity: dict[str, Any], **evaluation: Any) -> Record:
    """The record of a training, or of an evaluation with what belongs to one."""
    owner = None if method == "teacher" else "cross"
    cell = {"teacher": "teacher", "student": owner, "method": method, "seed": seed}
    about = {key: evaluation.pop(key) for key in ("task", "task_version") if key in evaluation}
    made = Identity.of({"model": identity} if about else identity)
    return Record(cell=RecordCell(**cell, **about), identity=made, status="done", environment=ENVIRONMENT, **evaluation)


def write_evaluation(folder: Path, owner: Record, value: float) -> None:
    """An evaluation of the model of a training's record, or of a teacher's, on ten items of a task."""
    scores = [100.0 if item < value / 10 else 0.0 for item in range(10)]
    made = record(
        owner.cell.method,
        owner.cell.seed,
        owner.identity.parts,
        task="small_math",
        task_version="1",
        n=Counts(total=10, scored=10, invalid=0, truncated=1, harness_error=0),
        headline="numeric",
        metrics={
            "numeric": MetricValue(value=value, ci95=(value - 9, value + 9), n=10),
            "strict": MetricValue(value=None, reason="no number", n=10),
        },
        overlap=[DataOverlap(of="student", data="mine", items=10, examples=20, n=13, short=0, exact=0, ngram=3)],
    )
    write_text_atomic(folder / "result.json", made.model_dump_json())
    samples = [{"id": str(k), "index": 0, "prompt": f"{k}?", "scores": {"numeric": scores[k]}} for k in range(10)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))


@pytest.fixture
def run(student: Path, tmp_path: Path) -> Path:
    """A run of two seeds whose first student is a real one; all are evaluated, the teacher too."""
    root = tmp_path / "run"
    for seed, value in ((1, 40.0), (2, 60.0)):
        cell = root / "cells" / "teacher__cross" / "dskd-v2-eta" / f"seed{seed}"
        cost = Cost(train_seconds=12.0, tokens=3456, peak_memory=2**30, signal_seconds=5.0)
        made = record("dskd-v2-eta", seed, {"method": "dskd-v2-eta", "seed": seed}, cost=cost)
        shutil.copytree(student, cell / "train" / "model")
        write_text_atomic(cell / "train" / "result.json", made.model_dump_json())
        manifest = Manifest(
            kind="train", title="t", identity=made.identity, state="done", started="2026-01-01T00:00:00Z"
        )
        write_text_atomic(cell / "train" / "manifest.json", manifest.model_dump_json())
        write_evaluation(cell / "eval" / "small_math@v1", made, value)
    teacher = record("teacher", None, {"files": {"model.safetensors": "another"}})
    write_evaluation(root / "cells" / "teacher" / "teacher" / "eval" / "small_math@v1", teacher, 90.0)
    return root

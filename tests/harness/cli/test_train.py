"""`harness train` with real models: its options reach the training, and several processes train what one does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import main
from harness.planning.plan import Plan
from harness.runs.records import Record, read_record
from harness.steps.training import Train

Harness = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, a student, and eight examples."""
    from harness.smallworld.tokenizers import write_byte_level
    from harness.steps.base_model import new_model

    folder = tmp_path_factory.mktemp("train")
    write_byte_level(folder / "tokenizer", ["Say 1234567890: it is, and no more of it."] * 5)
    for seed, name in enumerate(("teacher", "student")):
        new_model(CONFIG, folder / "tokenizer", seed, folder / name)
    rows = [{"prompt": f"Say {k}:", "output": f" it is {k}."} for k in range(8)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def train(harness: Harness, folder: Path, output: str, *options: str) -> Record:
    arguments = ["train", "--teacher", "teacher", "--student", "student", "--data", "data.jsonl", "--method", "kd"]
    run = harness(*arguments, "--output", output, *options, cwd=folder)
    assert run.returncode == 0, run.stderr
    return read_record(folder / output / "train/result.json")


def losses(folder: Path, output: str) -> dict[str, Any]:
    return json.loads((folder / output / "train/manifest.json").read_text())["report"]["losses"]


@pytest.mark.slow
def test_options_reach_the_training_and_an_adapted_student_is_an_ordinary_model(folder: Path, harness: Harness) -> None:
    options = [
        "--epochs",
        "1",
        "--batch-tokens",
        "64",
        "--packing",
        "--set",
        "lora.rank=2",
        "--set",
        "chunked_loss=false",
    ]
    record = train(harness, folder, "adapted", *options, "--teacher-outputs", "top_k", "--top-k", "5")
    parts = record.identity.parts
    asked = {"batch_tokens": 64, "packing": True, "fused_loss": False, "epochs": 1}
    assert asked.items() <= parts["training"].items()
    assert parts["training"]["lora"]["rank"] == 2
    # Distributions are kept at the temperature at which the method compares them.
    assert (parts["signal"]["kind"], parts["signal"]["k"], parts["signal"]["temperature"]) == ("top_k", 5, 2)
    assert (record.cost.teacher_examples, record.cost.signal_examples, record.cost.processes) == (0, 8, 1)
    names = {path.name for path in (folder / "adapted/train/model").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_on_policy_training_and_every_option_without_a_flag_are_set_by_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Plan] = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr("harness.cli.train.run_plan", lambda plan: planned.append(plan) or {})
    monkeypatch.setattr("harness.cli.train.print_failures", lambda plan, outcomes: True)
    settings = ["rollouts.share=1", "rollouts.max_new_tokens=4", "warmup_steps=1", "schedule=linear", "weight_decay=0"]
    models = ["--teacher", "teacher", "--student", "student", "--data", "data.jsonl", "--output", "planned"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    result = CliRunner().invoke(main, ["train", "--method", "minillm", "--steps", "2", *models, *flags])
    assert planned, result.output
    (step,) = (job.step for job in planned[0].jobs.values() if isinstance(job.step, Train))
    rollouts = step.training.rollouts
    assert rollouts is not None
    assert (rollouts.share, rollouts.max_new_tokens) == (1.0, 4)
    assert (step.training.warmup_steps, step.training.schedule, step.training.weight_decay) == (1, "linear", 0.0)
    refused = CliRunner().invoke(main, ["train", "--method", "minillm", "--steps", "2", *models])
    assert refused.stderr.startswith("error: --set rollouts: minillm learns from on-policy text alone; fix: ")


def test_flags_under_former_names_are_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    given = ["--method", "kd", "--steps", "2", "--signal-kind=hidden_states", "--signal-k", "4"]
    models = ["--teacher", "teacher", "--student", "student", "--data", "data.jsonl", "--output", "planned"]
    result = CliRunner().invoke(main, ["train", *models, *given])
    notices = ["notice: --signal-kind is now --teacher-outputs", "notice: --signal-k is now --top-k"]
    error = "error: --top-k: belongs to --teacher-outputs top_k; fix: leave it out"
    assert result.stderr.splitlines() == [*notices, error]
    assert "--signal" not in CliRunner().invoke(main, ["train", "--help"]).stdout


@pytest.mark.slow  # tests/dskd/training/test_processes.py and test_launch.py do it below the command
def test_two_processes_train_what_one_does(folder: Path, harness: Harness) -> None:
    one = train(harness, folder, "one", "--steps", "2", "--batch-size", "2", "--set", "gradient_accumulation_steps=2")
    two = train(harness, folder, "two", "--steps", "2", "--batch-size", "2", "--processes", "2")
    assert (one.cost.processes, two.cost.processes) == (1, 2)
    assert losses(folder, "two") == pytest.approx(losses(folder, "one"), rel=1e-5)
    assert two.cost.peak_memory is not None
    assert two.cost.peak_memory > 100 * 2**20
    log = (folder / "two/train/log.txt").read_text()
    assert "training: step 2 of 2: loss" in log

"""An adapter's folder, with its base model beside it and no tokenizer of its own, is a model for every command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import dskd
from dskd.data.preparation import prepare_dataset
from dskd.modeling.loading import load_model
from harness.cli import main
from harness.engines import create_engine
from harness.engines._types import Sampling
from harness.planning import preflight
from harness.planning.single_training import single_plan
from harness.runs.identity import FileHashes
from harness.steps.base_model import model_in_folder
from helpers.llama_folders import change_json, write_adapter, write_llama
from helpers.tiny_tokenizers import sentencepiece

SETTINGS: dict[str, Any] = {
    **{key: {} for key in ("method_options", "launch", "template")},
    **{"method": "dskd-v2-eta", "teacher_outputs": {"kind": "hidden_states"}, "training": {"steps": 2}},
    **{"seed": 0, "limit": None},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`, its adapter, what the two amount to in a folder of its own, and a student with another vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    base = write_llama(folder / "base", initializer_range=0.3)
    adapter = write_adapter(folder / "adapter", base, named="../base")
    shutil.copytree(base, folder / "merged")
    load_model(adapter).save_pretrained(folder / "merged")
    write_llama(folder / "student", tokenizer=sentencepiece())
    return folder


def harness(*arguments: Any) -> Any:
    return CliRunner().invoke(main, [*map(str, arguments)])


@pytest.mark.slow  # two evaluations
def test_it_generates_what_the_merged_model_does(models: Path, tmp_path: Path) -> None:
    prompts, written = tmp_path / "prompts.jsonl", tmp_path / "written.jsonl"
    texts = ["The quick", "def add(", "Question:"]
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    settings = ("--prompts", prompts, "--max-new-tokens", 8, "--engine", "transformers", "--output", written)
    done = harness("generate", "--model", models / "adapter", *settings)
    assert done.exit_code == 0, done.stderr
    outputs = [json.loads(line)["output"] for line in written.read_text().splitlines()]
    for name in ("merged", "base"):
        completions = create_engine("transformers", models / name).complete(texts, Sampling(8))
        assert (outputs == [completion.text for completion in completions]) == (name == "merged")


@pytest.mark.slow  # a whole training
def test_it_teaches_from_a_cache_as_the_merged_model_does(models: Path, tmp_path: Path) -> None:
    rows = tmp_path / "data.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"What is {k}?", "output": f" It is {k}."}) + "\n" for k in range(8)))
    losses = []
    for name in ("adapter", "merged"):
        teacher, student, folder = models / name, models / "student", tmp_path / name
        plan = single_plan(teacher=teacher, student=student, data=rows, output=folder / "plan", **SETTINGS)
        preflight.check(plan, allow_code_execution=False)
        prepare_dataset(rows, folder / "teacher-data", student=teacher)
        prepare_dataset(rows, folder / "data", student=student, teacher=teacher)
        outputs = dskd.TeacherCacheOptions(kind="hidden_states")
        dskd.build_teacher_cache(teacher, folder / "teacher-data", folder / "cache", options=outputs)
        report = dskd.train(
            data=folder / "data",
            student=student,
            teacher=teacher,
            teacher_cache=folder / "cache",
            method="dskd-v2-eta",
            options=dskd.TrainingOptions(steps=2, batch_size=4),
            output=folder / "run",
        )
        losses.append(report.losses)
    assert losses[0] == losses[1]
    assert losses[0]["loss"] > 0


def test_its_identity_is_its_own_and_its_base_models_files(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    before = model_in_folder("m", tmp_path / "models/adapter", FileHashes(), "--model")
    assert before.tokenizer_input.path(tmp_path) == tmp_path / "models/base"
    assert before.text_config["vocab_size"] == before.tokenizer_input.size
    change_json(tmp_path / "models/base/tokenizer_config.json", more="of it")
    after = model_in_folder("m", tmp_path / "models/adapter", FileHashes(), "--model")
    assert before.files == after.files
    assert before.tokenizer_input.fingerprint.hash != after.tokenizer_input.fingerprint.hash
    change_json(tmp_path / "models/base/config.json", rms_norm_eps=1e-3)
    assert (
        model_in_folder("m", tmp_path / "models/adapter", FileHashes(), "--model").fingerprint.hash
        != after.fingerprint.hash
    )

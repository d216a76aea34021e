"""A training whose process is killed with -9 again and again ends with the bytes of one that was left alone."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import pytest

from dskd.training.options import TrainingOptions
from harness.runs.job_spec import DONE, STOPPED
from harness.smallworld.world import write_world
from harness.steps.base_model import NewModel, Stage
from harness.steps.data import FileExamples, PreparedData
from harness.steps.tokenizers import TokenizerFiles
from helpers.job_processes import JobProcess

CONFIG = {
    "model_type": "llama",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 192,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small-world")
    write_world(folder, 0)
    return folder


def _steps(small_world: Path, steps: int, batch_size: int) -> tuple[PreparedData, NewModel]:
    """The quick matrix's student on its training set."""
    tokenizer = TokenizerFiles(folder=small_world / "tokenizers" / "bytelevel", files={})
    examples = FileExamples(file=small_world / "train" / "student.jsonl", sha256="")
    data = PreparedData(title="data", examples=examples, student_tokenizer=tokenizer, max_length=128)
    options = TrainingOptions.model_validate({"steps": steps, "batch_size": batch_size, "learning_rate": 2e-3})
    return data, NewModel(
        title="model", seed=1, training=[Stage(data=data, options=options)], config=CONFIG, tokenizer=tokenizer
    )


def _made(root: Path, model: NewModel) -> dict[str, Any]:
    """The bytes of a model and of its log, and what its report says apart from times and starts."""
    folder = model.path(root)
    report = json.loads((folder / "training_report.json").read_text())
    varying = {"train_seconds", "teacher_seconds", "tokens_per_second", "resumed_from_step"}
    files = {name: (folder / name).read_bytes() for name in ("model.safetensors", "training_log.jsonl")}
    return {**files, "report": {name: value for name, value in report.items() if name not in varying}}


def _undisturbed(root: Path, *steps: Any) -> float:
    """Seconds of the last step's job."""
    for step in steps:
        start = time.monotonic()
        assert JobProcess(root, step).wait(600) == DONE
    return time.monotonic() - start


def _places(root: Path, model: NewModel) -> set[str]:
    return {path.name for path in (root / model.folder / "stages/0/checkpoints").glob("checkpoint-*")}


@pytest.mark.slow  # a minute of kills
def test_killed_at_random_moments_and_once_asked_to_stop(small_world: Path, tmp_path: Path) -> None:
    data, model = _steps(small_world, steps=120, batch_size=8)
    _undisturbed(tmp_path / "whole", data, model)
    root, chance, seen = tmp_path / "killed", random.Random(18), set()
    assert JobProcess(root, data).wait() == DONE
    for attempt in range(3):
        job, before = JobProcess(root, model), _places(root, model)
        job.until(lambda before=before: _places(root, model) - before, 240)
        seen |= _places(root, model)
        time.sleep(chance.uniform(0, 0.3))
        if job.process.poll() is not None:
            break
        job.process.send_signal(signal.SIGUSR1 if attempt == 1 else signal.SIGKILL)
        assert job.wait() in ({STOPPED, DONE} if attempt == 1 else {-signal.SIGKILL, DONE})
    assert seen, "no checkpoint was written"
    assert JobProcess(root, model).wait() == DONE
    assert _made(root, model) == _made(tmp_path / "whole", model)


@pytest.mark.slow
def test_a_training_of_45_seconds_that_is_killed_every_13_ends_with_the_same_bytes(
    small_world: Path, tmp_path: Path
) -> None:
    """As a run is whose machine is taken away so often: what a start does before its first step is paid each time."""
    data, model = _steps(small_world, steps=1800, batch_size=16)
    seconds = _undisturbed(tmp_path / "whole", data, model)
    root, kills = tmp_path / "killed", 0
    assert JobProcess(root, data).wait() == DONE
    for job in _started_again(root, model, at_most=100):
        try:
            assert job.wait(13) == DONE
            break
        except TimeoutExpired:
            job.process.kill()
            job.wait()
            kills += 1
    print(f"undisturbed {seconds:.0f} s, killed {kills} times")
    assert kills >= 2
    assert _made(root, model) == _made(tmp_path / "whole", model)


def _started_again(root: Path, model: NewModel, at_most: int) -> Iterator[JobProcess]:
    for _ in range(at_most):
        yield JobProcess(root, model)
    pytest.fail(f"not done after {at_most} starts")

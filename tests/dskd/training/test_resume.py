"""Killed at any moment, as often as may be, a training goes on to the same weights and logged steps, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dskd.training.checkpoints import unfinished
from dskd.training.run import TrainingOptions, train
from helpers.training_runs import logged, saved_weights

COMMON = {"learning_rate": 1e-2, "logging_steps": 3}
CASES = {
    # 20 examples are seven micro-batches an epoch, so that optimizer steps and epochs end at different places.
    "accumulated": ("same", {"batch_size": 3, "gradient_accumulation_steps": 2, "checkpoint_steps": 2}),
    "packed": ("cross", {"packing": True, "batch_tokens": 120, "checkpoint_steps": 2}),
    "adapter": (
        "same",
        {"batch_size": 4, "lora": {"rank": 4, "dropout": 0.2}, "gradient_checkpointing": True, "checkpoint_steps": 2},
    ),
    # As the clock says: after any step.
    "by time": ("cross", {"batch_size": 3, "gradient_accumulation_steps": 2, "checkpoint_seconds": 0.03}),
}


def _train(folder: Path, case: str, steps: int, output: Path, progress: Any = None) -> None:
    student, changes = CASES[case]
    train(
        data=folder / f"{student}-data",
        student=folder / student,
        teacher=folder / "teacher",
        method="dskd-v2-eta",
        options=TrainingOptions(steps=steps, **COMMON, **changes),
        seed=3,
        output=output,
        progress=progress,
    )


def _train_and_tell(folder: Path, case: Any, steps: int, output: Path, pipe: Any) -> None:
    _train(folder, case, steps, output, lambda event: pipe.send(event["step"]))


@pytest.fixture(scope="module")
def starter() -> Any:
    """Starts processes that have the imports behind them, so that many kills take little time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["dskd.training.trainer", "dskd.training.run", "dskd.training.setup", "datasets", "peft"]
    )
    return context


def _report(output: Path) -> Any:
    return json.loads((output / "model" / "training_report.json").read_text())


def _half_written(output: Path) -> bool:
    """Whether a checkpoint is being written, or an old one removed, at this moment."""
    return any(unfinished(output / "checkpoints").glob("checkpoint-*"))


def _kill_somewhere(process: Any, pipe: Any, output: Path, chance: Any, torn: bool) -> bool:
    """Kill after three to six more steps: at any moment, or with `torn` in the middle of a checkpoint. False if done."""
    try:
        # Of three steps at least one is saved, so that every start gets further than the one before.
        steps = [pipe.recv() for _ in range(chance.randint(3, 6))]
        limit = time.monotonic() + (10 if torn else chance.uniform(0, 0.1))
        while time.monotonic() < limit and process.is_alive() and not (torn and _half_written(output)):
            time.sleep(0)
    except EOFError:
        steps = []
    alive = process.is_alive()
    process.kill()
    process.join()
    return bool(steps) and alive and process.exitcode == -9


@pytest.mark.parametrize(
    ("case", "kills"),
    [
        *((case, 3) for case in ("accumulated", "by time")),
        *(pytest.param(case, 20, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_a_training_killed_again_and_again_ends_with_the_weights_of_one_that_was_not(
    dropping: Path, starter: Any, tmp_path: Path, case: str, kills: int
) -> None:
    steps = 11 * kills
    _train(dropping, case, steps, tmp_path / "whole")
    output, chance, done, torn, places = tmp_path / "killed", random.Random(kills), 0, 0, []
    for attempt in range(kills):
        reader, writer = starter.Pipe(duplex=False)
        process = starter.Process(target=_train_and_tell, args=(dropping, case, steps, output, writer))
        process.start()
        writer.close()
        done += _kill_somewhere(process, reader, output, chance, torn=attempt % 2 == 1)
        torn += _half_written(output)
        places.append(sorted(path.name for path in (output / "checkpoints").glob("checkpoint-*")))
    assert done == kills, f"{kills - done} trainings were done before they were killed"
    assert not (output / "model").exists()
    assert torn, "no kill came while a checkpoint was written"
    assert places[-1] != places[0], "the killed trainings got no further"
    _train(dropping, case, steps, output)
    reports = {name: _report(tmp_path / name) for name in ("whole", "killed")}
    assert 0 < reports["killed"]["resumed_from_step"] < steps
    for fact in ("losses", "gradient_norm", "tokens", "padding_share", "teacher_examples"):
        assert reports["killed"][fact] == reports["whole"][fact]
    assert logged(output) == logged(tmp_path / "whole")
    whole, killed = (saved_weights(tmp_path / name) for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert [name for name, value in whole.items() if not torch.equal(killed[name], value)] == []
    shutil.rmtree(tmp_path / "whole")

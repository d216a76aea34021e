"""A training that ends after a share of its steps, and others that go on from it, give the student of one that does all at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dskd.errors import InputError, Stopped
from dskd.training.loop_callback import steps_of_share
from helpers.training_runs import assert_same_weights, logged, saved_weights, train_tiny

CASES: dict[str, dict[str, Any]] = {
    "kd": {"steps": 8, "logging_steps": 3},
    "dskd-v2-eta": {"steps": 8, "logging_steps": 2, "gradient_accumulation_steps": 2},
    "opd": {"steps": 8, "logging_steps": 2, "rollouts": {"share": 1.0, "max_new_tokens": 4}},
}


def steps_of(folder: Path) -> int:
    return json.loads((folder / "model" / "training_report.json").read_text())["steps"]


@pytest.mark.parametrize("name", CASES)
def test_quarter_half_and_whole_are_the_training_in_one_go(world: Path, tmp_path: Path, name: str) -> None:
    whole = train_tiny(world, tmp_path / "whole", name, **CASES[name])
    quarter = train_tiny(world, tmp_path / "quarter", name, share=0.25, **CASES[name])
    half = train_tiny(world, tmp_path / "half", name, share=0.5, start=tmp_path / "quarter", **CASES[name])
    rest = train_tiny(world, tmp_path / "rest", name, start=tmp_path / "half", **CASES[name])
    assert [each.steps for each in (quarter, half, rest, whole)] == [2, 4, 8, 8]
    assert [each.resumed_from_step for each in (quarter, half, rest)] == [0, 2, 4]
    assert rest.tokens == whole.tokens
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "rest"), rtol=0, atol=0)
    same = {"loss", "step", "learning_rate", "epoch"}
    assert [{key: entry[key] for key in same} for entry in logged(tmp_path / "rest")] == [
        {key: entry[key] for key in same} for entry in logged(tmp_path / "whole")
    ]
    # What goes on from them needs the checkpoints; nothing does from the last.
    assert (tmp_path / "half" / "checkpoints").is_dir()
    assert not (tmp_path / "rest" / "checkpoints").exists()


def test_what_is_done_is_not_done_again_and_a_lost_checkpoint_only_costs_time(world: Path, tmp_path: Path) -> None:
    half = train_tiny(world, tmp_path / "half", share=0.5)
    assert train_tiny(world, tmp_path / "half", share=0.5) == half
    shutil.rmtree(tmp_path / "half" / "checkpoints")
    rest = train_tiny(world, tmp_path / "rest", start=tmp_path / "half")
    assert rest.resumed_from_step == 0
    train_tiny(world, tmp_path / "whole")
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "rest"), rtol=0, atol=0)


def test_a_share_that_was_stopped_goes_on(world: Path, tmp_path: Path) -> None:
    told: list[int] = []
    with pytest.raises(Stopped):
        train_tiny(
            world,
            tmp_path / "half",
            share=0.5,
            progress=lambda event: told.append(event["step"]),
            stop=lambda: bool(told) and told[-1] >= 1,
        )
    assert train_tiny(world, tmp_path / "half", share=0.5).steps == 3
    train_tiny(world, tmp_path / "whole")
    train_tiny(world, tmp_path / "rest", start=tmp_path / "half")
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "rest"), rtol=0, atol=0)


def test_what_cannot_be_is_refused(world: Path, tmp_path: Path) -> None:
    train_tiny(world, tmp_path / "half", share=0.5)
    with pytest.raises(InputError, match=r"half: holds a training with another options; fix"):
        train_tiny(world, tmp_path / "rest", start=tmp_path / "half", learning_rate=1e-3)
    with pytest.raises(InputError, match=r"half: holds a training with another share; fix"):
        train_tiny(world, tmp_path / "half", share=0.6)
    with pytest.raises(InputError, match=r"share: 0 is not above 0 and up to 1; fix"):
        train_tiny(world, tmp_path / "none", share=0)


@pytest.mark.parametrize(
    ("share", "steps", "expected"), [(0.1, 30, 3), (0.25, 30, 8), (1.0, 7, 7), (0.001, 7, 1), (0.7, 10, 7)]
)
def test_a_share_of_steps_is_rounded_up(share: float, steps: int, expected: int) -> None:
    assert steps_of_share(share, steps) == expected

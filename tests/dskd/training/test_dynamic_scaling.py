"""X-Token's ratio of its two losses, which is of the whole optimizer step however that is split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.training.run import TrainingOptions, train
from helpers import tiny_world
from helpers.training_runs import OPTIONS, ROUNDING, assert_same_weights, logged, saved_weights


def _train(world: Path, output: Path, **changes: Any) -> list[dict[str, Any]]:
    student = tiny_world.student_of("x-token")
    train(
        data=world / f"{student}-data",
        student=world / student,
        teacher=world / "teacher",
        method="x-token",
        method_options={"dynamic_scaling": True},
        options=TrainingOptions(**{**OPTIONS, "steps": 3, "batch_size": 4, **changes}),
        seed=3,
        output=output,
    )
    return logged(output)


def test_the_loss_is_twice_the_cross_entropy_and_accumulation_changes_nothing(world: Path, tmp_path: Path) -> None:
    whole = _train(world, tmp_path / "whole")
    parts = _train(world, tmp_path / "parts", batch_size=2, gradient_accumulation_steps=2)
    for entry, other in zip(whole, parts, strict=True):
        assert entry["loss"] == pytest.approx(2 * entry["cross_entropy"], rel=1e-5)
        assert entry["dynamic_scale"] > 0
        for name in ("loss", "projected", "dynamic_scale", "distilled_share"):
            assert other[name] == pytest.approx(entry[name], rel=1e-4), name
    assert whole[0]["dynamic_scale"] != pytest.approx(whole[-1]["dynamic_scale"], rel=1e-3)
    assert_same_weights(saved_weights(tmp_path / "whole"), saved_weights(tmp_path / "parts"), **ROUNDING)

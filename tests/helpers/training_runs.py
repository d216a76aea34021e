"""Short trainings on the tiny world, and what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dskd.teachers.options import ServedOptions, TeacherSource
from dskd.training.run import TrainingOptions, train
from dskd.training.trainer import PROJECTORS
from helpers import tiny_world

OPTIONS = {"steps": 6, "batch_size": 4, "learning_rate": 1e-2, "logging_steps": 1}


def train_tiny(
    world: Path,
    output: Path,
    name: str = "kd",
    student: str | None = None,
    progress: Callable | None = None,
    served: ServedOptions | None = None,
    stop: Callable[[], bool] | None = None,
    tags: Mapping[str, str] | None = None,
    share: float = 1.0,
    start: Path | None = None,
    **changes: Any,
) -> Any:
    """Train by a method, on the student that suits it if none is named; with a teacher behind an address if one is given."""
    student = student or tiny_world.student_of(name)
    return train(
        data=world / f"{student}-data",
        student=world / student,
        teacher=world / "teacher",
        teacher_source=None if served is None else TeacherSource(folder=world / "teacher", served=served),
        method=name,
        options=TrainingOptions(**{**OPTIONS, **tiny_world.text_of(name), **changes}),
        seed=3,
        output=output,
        progress=progress,
        stop=stop,
        tags=tags,
        share=share,
        start=start,
    )


def logged(folder: Path) -> list[dict[str, Any]]:
    """What a training logged, step by step."""
    return [json.loads(line) for line in (folder / "model" / "training_log.jsonl").read_text().splitlines()]


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    weights = load_file(folder / "model" / "model.safetensors")
    projectors = folder / "model" / PROJECTORS
    return weights | (load_file(projectors) if projectors.exists() else {})


def assert_same_weights(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], **tolerance: Any) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        torch.testing.assert_close(right[name], value, **tolerance)


# Adam divides by the gradient's size, so differences at the level of rounding grow where a gradient is nearly zero.
ROUNDING = {"rtol": 1e-3, "atol": 1e-3}


def a_few_at_once(
    names: Iterable[str], quick: Collection[str] = ("sft", "kd", "dskd-v2-eta", "gold", "minillm")
) -> list[Any]:
    """Methods as parameters of a test that trains by each: one of each kind in every run, the others marked slow."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]

"""A sampler that writes what a test says, and the rollouts of the tiny world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from dskd.modeling.loading import load_tokenizer
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.rollouts import Rollouts
from dskd.rollouts.sample_rows import ModelText
from dskd.tokenization.vocabulary import Vocabulary


class Written:
    """A sampler that writes what it is told, whatever the prompt."""

    prompts_at_once = 64

    def __init__(self, *samples: Any) -> None:
        self.samples = samples
        self.asked = []
        self.updates = 0

    def update(self) -> None:
        self.updates += 1

    def sample(self, prompts: list[list[int]], numbers: np.ndarray) -> list[Any]:
        self.asked += zip(prompts, numbers.tolist(), strict=True)
        return [self.samples[k % len(self.samples)] for k in range(len(prompts))]


def make_rollouts(
    world: Path,
    name: str,
    sampler: Any,
    path: Path | None = None,
    positions: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Rollouts:
    sides = []
    for folder in (name, "teacher"):
        tokenizer = load_tokenizer(world / folder)
        sides.append(ModelText(tokenizer, Vocabulary.from_tokenizer(tokenizer), positions))
    options = RolloutOptions(**{"share": 1.0, **options})
    return Rollouts(options, sampler, *sides, same_vocabulary=name == "same", seed=seed, path=path)


def numbered_rows(world: Path, name: str) -> list[dict[str, Any]]:
    data = datasets.load_from_disk(str(world / f"{name}-data"))
    return list(data.add_column("example", range(len(data))))


def with_prompt(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with prompts that are surely prompts."""
    return [row for row in rows if min(row["student_prompt_length"], row["teacher_prompt_length"]) > 1]


def rollout_records(folder: Path) -> list[dict[str, Any]]:
    lines = [line for path in sorted((folder / "rollouts").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda record: (record["epoch"], record["example"]))

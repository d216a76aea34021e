"""A sampler that writes what a test says, and the rollouts of the tiny world."""

from __future__ import annotations

import json

import datasets

from dskd.modeling.loading import load_tokenizer
from dskd.rollouts.options import RolloutOptions
from dskd.rollouts.rollouts import ModelText, Rollouts
from dskd.tokenization.vocabulary import Vocabulary


class Written:
    """A sampler that writes what it is told, whatever the prompt."""

    def __init__(self, *samples):
        self.samples = samples
        self.asked = []
        self.updates = 0

    def update(self):
        self.updates += 1

    def sample(self, prompts, numbers):
        self.asked += zip(prompts, numbers.tolist(), strict=True)
        return [self.samples[k % len(self.samples)] for k in range(len(prompts))]


def make_rollouts(world, name, sampler, path=None, positions=None, seed=0, **options):
    sides = []
    for folder in (name, "teacher"):
        tokenizer = load_tokenizer(world / folder)
        sides.append(ModelText(tokenizer, Vocabulary.from_tokenizer(tokenizer), positions))
    options = RolloutOptions(**{"share": 1.0, **options})
    return Rollouts(options, sampler, *sides, same_vocabulary=name == "same", seed=seed, path=path)


def numbered_rows(world, name):
    data = datasets.load_from_disk(str(world / f"{name}-data"))
    return list(data.add_column("example", range(len(data))))


def with_prompt(rows):
    """Rows with prompts that are surely prompts."""
    return [row for row in rows if min(row["student_prompt_length"], row["teacher_prompt_length"]) > 1]


def rollout_records(folder):
    lines = [line for path in sorted((folder / "rollouts").glob("*.jsonl")) for line in path.read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda record: (record["epoch"], record["example"]))

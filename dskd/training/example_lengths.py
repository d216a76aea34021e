"""How long the examples of a training are, by which batches are made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as compute

from dskd.data.rows import last_prompt_lengths
from dskd.training.options import TrainingOptions
from dskd.training.several_examples import SeveralDatasets


def example_lengths(dataset: Any, options: TrainingOptions, *, keeps_data: bool) -> Any:
    """Tokens of each example, of the longest of its sides and rollout [examples]; twice as many where both are in a batch."""
    several = isinstance(dataset, SeveralDatasets)
    lengths = [dataset.largest(_longer_side) if several else _longer_side(dataset)]
    if options.rollouts is not None and options.batch_tokens is not None:
        prompts = dataset.largest(prompt_lengths) if several else prompt_lengths(dataset)
        if options.rollouts.replay is not None:  # a text of any example may stand in for it
            prompts = np.full_like(prompts, prompts.max())
        lengths.append(prompts + options.rollouts.max_new_tokens)
    return np.max(lengths, axis=0) * (2 if options.rollouts is not None and keeps_data else 1)


def prompt_lengths(dataset: Any) -> np.ndarray:
    """The student's tokens before the last response of each row [rows]."""
    return last_prompt_lengths(dataset, "student")


def _longer_side(dataset: Any) -> np.ndarray:
    sides = [name for name in ("student_ids", "teacher_ids") if name in dataset.column_names]
    columns = dataset.select_columns(sides).with_format("arrow")[:]
    longest: np.ndarray = np.max([compute.list_value_length(columns[name]).to_numpy() for name in sides], axis=0)
    return longest

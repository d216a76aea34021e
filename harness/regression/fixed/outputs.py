"""Greedy outputs of the fixed models on the first items of each task, and how far apart two tokens are where two outputs part."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch

from dskd.data.preparation import encode_prompt
from dskd.modeling.loading import load_model, load_tokenizer
from harness import tasks
from harness.engines import create_engine
from harness.engines._types import Completion
from harness.evaluation.generate import Prompts, longest, prompts_of_task, sampling_of
from harness.protocols import GREEDY
from harness.regression.fixed.folder import MODELS, TASKS, FixedFolder
from harness.regression.fixed.records import Outputs

ITEMS = 20  # of each task
_DIGITS = 16


def complete(
    folder: FixedFolder, names: Sequence[str] = MODELS, told: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[str, dict[str, Completion]]]:
    """Complete the first items of each task with each model.

    Args:
        folder: The models.
        names: Which of them.
        told: Called with the name of a model before it is asked.

    Yields:
        `model/task`, and the completions by item.
    """
    for name in names:
        told(name)
        tokenizer = load_tokenizer(folder.model(name))
        asked = {task: _prompts(task, tokenizer) for task in TASKS}
        room = max(longest(tokenizer, prompts, GREEDY) for prompts in asked.values())
        engine = create_engine("transformers", folder.model(name), max_length=room)
        try:
            for task, prompts in asked.items():
                completions = engine.complete(list(prompts.texts.values()), sampling_of(prompts, GREEDY))
                yield f"{name}/{task}", dict(zip(prompts.texts, completions, strict=True))
        finally:
            engine.close()


def measure_outputs(
    folder: FixedFolder, names: Sequence[str] = MODELS, told: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[str, Outputs]]:
    """As `complete`, in the form of a baseline."""
    for cell, completions in complete(folder, names, told):
        asked = [(item, done.prompt_ids) for item, done in completions.items()]
        items = {item: (_digest(done.text), tuple(done.ids)) for item, done in completions.items()}
        yield cell, Outputs(prompts=_digest(json.dumps(asked)), items=items)


class LogitGaps:
    """How far apart the logits of two tokens are. Called with the cell, the item, the output before both, and the two."""

    def __init__(self, folder: FixedFolder) -> None:
        self._folder = folder
        self._model = cache(lambda name: load_model(folder.model(name), "float32").eval())

    @torch.inference_mode()
    def __call__(self, cell: str, item: str, before: tuple[int, ...], one: int, other: int) -> float:
        name, task = cell.split("/")
        tokenizer = load_tokenizer(self._folder.model(name))
        prompt = encode_prompt(tokenizer, _prompts(task, tokenizer).texts[item])
        logits = self._model(name)(input_ids=torch.tensor([[*prompt, *before]])).logits[0, -1].float()
        return abs((logits[one] - logits[other]).item())


def _prompts(task: str, tokenizer: Any) -> Prompts:
    return prompts_of_task(tasks.load(task), tokenizer, ITEMS)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]

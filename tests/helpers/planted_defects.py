"""Defects that a regression check has to catch. Each takes the place of a part of the code while a test or a script runs it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from harness.metrics import numbers
from harness.metrics.final_number import find_final_number


def first_number(answer: str, *_: Any) -> Any:
    """What takes the place of `harness.metrics.numbers.find_final_number`: the first number of a worked answer, not its last."""
    found = re.search(r"[0-9]+", answer)
    return find_final_number(found.group(), *_) if found else None


def _twice_the_learning_rate() -> tuple[Any, str, Any]:
    """The optimizer steps twice as far as its learning rate says; what is logged is the rate as it was asked for."""
    from dskd.training.trainer import DistillationTrainer

    def create(self: Any, *given: Any) -> Any:
        optimizer = right(self, *given)
        step = optimizer.step

        def twice(*closure: Any) -> None:
            rates = [group["lr"] for group in optimizer.param_groups]
            for group in optimizer.param_groups:
                group["lr"] *= 2
            step(*closure)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

        optimizer.step = twice
        return optimizer

    right = DistillationTrainer.create_optimizer
    return DistillationTrainer, "create_optimizer", create


def _labels_off_by_one() -> tuple[Any, str, Any]:
    """The hidden state of the token itself is to predict it, not that of the one before."""
    from dskd.data import collator

    def side(*given: Any) -> Any:
        tokens = right(*given)
        return replace(tokens, labelled=(tokens.labelled + 1).clamp_max(tokens.input_ids.numel() - 1))

    right = collator._side
    return collator, "_side", side


def _multiplied_temperature() -> tuple[Any, str, Any]:
    """Logits are multiplied by the temperature, not divided by it."""
    from dskd.methods.base import DivergenceOptions

    def distance(self: Any, name: Any = None, temperature: float | None = None) -> Any:
        return right(self, name, 1 / (temperature or self.temperature))

    right = DivergenceOptions.distance
    return DivergenceOptions, "distance", distance


def _partner_off_by_one() -> tuple[Any, str, Any]:
    """A student token's partner is the teacher token after the right one."""
    from dskd.data import batch_encoding

    def align_many(teacher: Any, student: Any) -> Any:
        aligned = right(teacher, student)
        return [((pairs[0][1:], pairs[1][:-1]), groups) for pairs, groups in aligned]

    right = batch_encoding.align_many
    return batch_encoding, "align_many", align_many


def _visible_padding() -> tuple[Any, str, Any]:
    """The tokens that fill up shorter prompts of a batch are read as if they were text."""
    import torch
    from transformers import LlamaForCausalLM

    def generate(self: Any, *given: Any, **options: Any) -> Any:
        return right(self, *given, **options | {"attention_mask": torch.ones_like(options["input_ids"])})

    right = LlamaForCausalLM.generate
    return LlamaForCausalLM, "generate", generate


def _first_number() -> tuple[Any, str, Any]:
    return numbers, "find_final_number", first_number


# By name: what makes (an object, its attribute, what takes the attribute's place).
DEFECTS: dict[str, Callable[[], tuple[Any, str, Any]]] = {
    "learning rate": _twice_the_learning_rate,
    "labels": _labels_off_by_one,
    "temperature": _multiplied_temperature,
    "alignment": _partner_off_by_one,
    "padding": _visible_padding,
    "extractor": _first_number,
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """One of DEFECTS, inside the context."""
    with patch.object(*DEFECTS[name]()):
        yield

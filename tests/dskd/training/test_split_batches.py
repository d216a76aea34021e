"""Micro-batches in parts give the step of whole ones.

Weights and losses are equal to 1e-4 after six steps of Adam, which divides by the gradient's size: a single step's gradients agree to
1e-5 (P11, docs/performance.md).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dskd import methods
from dskd.errors import InputError
from dskd.training.run import TrainingOptions
from dskd.training.split_batches import SplitCollator, parts_of, regrouped
from helpers.training_runs import assert_same_weights, logged, saved_weights, train_tiny

COMMON: dict[str, Any] = {"batch_size": 5, "learning_rate": 1e-3, "gradient_accumulation_steps": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "kd": ("kd", {}),
    "dskd-v2-eta": ("dskd-v2-eta", {}),
    "dskd-v2-eta, packed": ("dskd-v2-eta", {"packing": True}),
    "gold": ("gold", {}),
    "alm": ("alm", {}),
    "minillm, the student's own text": ("minillm", {}),
    "one micro-batch a step": ("dskd-v2-eta", {"gradient_accumulation_steps": 1}),
    "by tokens": ("kd", {"batch_size": 16, "batch_tokens": 150}),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_of_micro_batches_train_as_whole_ones(world: Path, tmp_path: Path, case: str) -> None:
    method, changes = CASES[case]
    reports = {
        parts: train_tiny(world, tmp_path / str(parts), method, **{**COMMON, **changes}, split_batches=parts)
        for parts in (1, 2)
    }
    assert reports[2].split_batches == 2
    assert reports[2].tokens == reports[1].tokens
    assert reports[2].losses == pytest.approx(reports[1].losses, rel=1e-4, abs=1e-6)
    assert_same_weights(saved_weights(tmp_path / "1"), saved_weights(tmp_path / "2"), rtol=1e-4, atol=1e-4)
    for whole, split in zip(logged(tmp_path / "1"), logged(tmp_path / "2"), strict=True):
        assert split["loss"] == pytest.approx(whole["loss"], rel=1e-4)


def test_rows_are_divided_in_their_order_and_never_into_nothing() -> None:
    collate = SplitCollator(list, 3)
    assert collate(range(7)).parts == [[0, 1], [2, 3], [4, 5, 6]]
    assert collate(range(2)).parts == [[0], [1]]
    batches = [collate(range(2)), "whole", collate(range(4))]
    parts = [part for batch in batches for part in parts_of(batch)]
    assert regrouped(batches, parts) == batches


def test_a_method_that_reads_padding_refuses(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kd = methods.get("kd")
    monkeypatch.setattr(kd, "requires", replace(kd.requires, padded_hidden=True))
    with pytest.raises(InputError, match="split_batches: the method reads padding; fix: lower batch_size"):
        train_tiny(world, tmp_path, "kd", split_batches=2)


def test_it_is_no_part_of_an_identity() -> None:
    assert TrainingOptions(steps=3, split_batches=4).identity() == TrainingOptions(steps=3).identity()

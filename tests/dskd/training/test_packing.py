"""Rows of several examples: where they are taken by themselves, and where they cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from dskd.training.run import train
from helpers.training_runs import OPTIONS, train_tiny


def test_examples_are_packed_unless_told_otherwise_and_the_training_is_the_same(world: Path, tmp_path: Path) -> None:
    padded = train_tiny(world, tmp_path / "padded", packing=False)
    packed = train_tiny(world, tmp_path / "packed")
    assert packed.padding_share < padded.padding_share / 2
    assert packed.tokens == padded.tokens
    for name, loss in padded.losses.items():
        assert packed.losses[name] == pytest.approx(loss, rel=1e-3)


def test_a_model_that_cannot_tell_packed_examples_apart_gets_a_row_for_each(world: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(world / "same")
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "n_layer": 2, "n_head": 4}
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(**sizes, eos_token_id=tokenizer.eos_token_id))
    for saved in (bloom, tokenizer):
        saved.save_pretrained(tmp_path / "bloom")

    def trained(folder: str, **changes: object) -> float:
        options = TrainingOptions(**{**OPTIONS, "steps": 2, **changes})
        data, student = world / "same-data", tmp_path / "bloom"
        return train(data=data, student=student, method="sft", options=options, output=tmp_path / folder).padding_share

    assert trained("auto") == trained("padded", packing=False) > 0
    with pytest.raises(InputError, match=r"bloom: this model sees from one packed .* fix: train with packing: auto or"):
        trained("packed", packing=True)

"""dskd/options.py: what of options is part of an identity, and names that options had before."""

from __future__ import annotations

from typing import Annotated, ClassVar

import pytest
from pydantic import AliasChoices, Field, ValidationError

from dskd import methods
from dskd.options import NOT_IDENTITY, Options, identity_of, old_names
from dskd.training.options import TrainingOptions


class Inner(Options):
    share: float = 0.5
    memory: Annotated[float, NOT_IDENTITY] = 0.3


class Outer(Options):
    retired: ClassVar = {"parity": ("none", "use another method")}

    new: bool = Field(True, validation_alias=AliasChoices("new", "old"), serialization_alias="old")
    inner: Inner | None = None


def test_an_identity_has_the_old_keys_and_leaves_out_what_changes_no_result() -> None:
    assert Outer(inner=Inner()).identity() == {"parity": "none", "old": True, "inner": {"share": 0.5}}
    assert Outer(new=False, inner=None).identity() == {"parity": "none", "old": False, "inner": None}
    assert identity_of(None) is None


def test_old_names_are_taken_and_told() -> None:
    assert Outer(old=False) == Outer(new=False)
    assert old_names(Outer, {"old": False, "inner": None}) == {"old": "new"}
    assert old_names(TrainingOptions, {"fused_loss": True, "steps": 3}) == {"fused_loss": "chunked_loss"}
    assert old_names(methods.get("dskd-v2").Options, {"spaces": "both"}) == {"spaces": "distill_in"}


def test_a_retired_option_may_have_its_default_and_nothing_else() -> None:
    assert Outer(parity="none") == Outer()
    with pytest.raises(ValidationError, match="parity is no option any more; fix: use another method"):
        Outer(parity="dskdv2")


def test_how_a_training_is_saved_and_logged_is_not_part_of_its_identity() -> None:
    plain = TrainingOptions(steps=3)
    other = TrainingOptions(steps=3, checkpoint_steps=7, logging_steps=1, chunk_tokens=4, trackers=["wandb"])
    assert other.identity() == plain.identity()
    assert TrainingOptions(steps=3, chunked_loss=False).identity() == {**plain.identity(), "fused_loss": False}
    few = [TrainingOptions(steps=3, rollouts={"gpu_memory_utilization": share}) for share in (0.2, 0.4)]
    assert few[0].identity() == few[1].identity() != plain.identity()

"""What a record says of the tuning of its setting."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

_STRICT = ConfigDict(extra="forbid", defer_build=True)


def _without_nan(value: dict[str, Any]) -> dict[str, Any]:
    """Records may come from other people, and no table or page can hold NaN."""
    json.dumps(value, allow_nan=False)  # ValueError
    return value


_Values = Annotated[dict[str, Any], AfterValidator(_without_nan)]


class TrialRecord(BaseModel):
    """One trial: what it changed of the default, and what came out.

    Attributes:
        trial: Its number; 0 is the default.
        settings: {option: value} that differ from the default; options of the training as `training.OPTION`.
        share: Of the steps, those that it was trained for when it was compared last.
        score: By the rule, in per cent of the teacher; null for one that could not be trained or scored.
        scores: The validation score of each task.
        tokens: Student tokens that it was trained on.
        seconds: Of training.
    """

    model_config = _STRICT
    trial: int
    settings: _Values = Field(default_factory=dict)
    share: FiniteFloat
    score: FiniteFloat | None
    scores: dict[str, FiniteFloat | None] = Field(default_factory=dict)
    tokens: int | None = None
    seconds: FiniteFloat | None = None


class TuningRecord(BaseModel):
    """How the setting of a student was chosen. Its training is of a seed that no trial has used.

    Attributes:
        rule: By which trials were ranked.
        budget: What was allowed, as the matrix says it.
        halving: Whether worse trials were dropped early.
        seed: Of the trials' points, and of their trainings (`trial_seed`).
        space: {option: its range in words}.
        chosen: The trial that was chosen.
        settings: What it changes of the default.
        score: Its validation score by the rule; `default_score` that of trial 0, when it was compared last.
        teacher: The teacher's validation score on each task.
        trials: All of them, the best first; what was dropped by halving comes after what was compared later.
    """

    model_config = _STRICT
    rule: str
    budget: _Values
    halving: bool
    seed: int
    trial_seed: int
    space: Annotated[dict[str, str], Field(description="the range of each option that is tuned, in words")]
    chosen: int
    settings: _Values
    score: FiniteFloat
    default_score: FiniteFloat | None
    teacher: dict[str, FiniteFloat | None]
    trials: list[TrialRecord]

"""What the code did with fixed models and texts, as a baseline file has it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.regression.baseline import Provenance


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Outputs(_Strict):
    """The greedy outputs of a model on the first items of a task.

    Attributes:
        prompts: A digest of the prompts, as text and as tokens.
        items: By item: a digest of the text, and the tokens.
    """

    prompts: str
    items: dict[str, tuple[str, tuple[int, ...]]]


class Step(_Strict):
    """One optimizer step: what was logged of it, and the tokens of each response that the student sampled for it."""

    values: dict[str, float]
    sampled: tuple[tuple[int, ...], ...] = ()


class FirstSteps(_Strict):
    """The first steps of a training. `tokens`: student tokens trained on; `moved`: the norm of all changes of the student's weights."""

    tokens: int
    moved: float
    steps: tuple[Step, ...]


class Behaviour(_Strict):
    """All that is compared, by cell.

    Attributes:
        outputs: By `model/task`.
        first_steps: By `student/method`.
        scores: By task, then by completion: each metric's score.
        failed: By cell: why it could not be measured.
    """

    outputs: dict[str, Outputs] = Field(default_factory=dict)
    first_steps: dict[str, FirstSteps] = Field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, float | None]]] = Field(default_factory=dict)
    failed: dict[str, str] = Field(default_factory=dict)


class FixedBaseline(_Strict):
    """The file baseline.json. `files`: the sha256 of each model and text that it was made from, by path in the folder."""

    schema_version: Literal[1] = 1
    kind: Literal["fixed-models"] = "fixed-models"
    provenance: Provenance
    environment: dict[str, Any]
    files: dict[str, str]
    behaviour: Behaviour

"""The schema of `distances.json`: how far a model is from its teacher on the texts of one task (docs/distances.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from harness.runs.identity import Identity
from harness.runs.records import Cost, Environment, Printable, RecordCell

DISTANCES = "distances.json"
_STRICT = ConfigDict(extra="forbid", defer_build=True)

TextName = Literal["own_answers", "reference_answers"]
DistanceName = Literal[
    "kl_teacher_student",
    "kl_student_teacher",
    "top_k_overlap",
    "overlap_advantage",
    "student_entropy",
    "teacher_entropy",
    "log_likelihood_difference",
    "aligned_share",
    "length_ratio",
    "cut_off_share",
]


class DistanceValue(BaseModel):
    """One number over all items. `value` is null only with a `reason`.

    `n` counts what it is a mean over (tokens, bytes or answers), `items` the problems from which the interval is drawn.
    """

    model_config = _STRICT
    value: FiniteFloat | None
    ci95: tuple[FiniteFloat, FiniteFloat] | None = None
    n: int = 0
    items: int = 0
    reason: str | None = None

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> DistanceValue:
        if self.value is None and not self.reason:
            raise ValueError("a distance without value needs a reason")
        return self


class TextDistances(BaseModel):
    """The numbers on one kind of text.

    `source` and `outputs` say where the teacher's distributions are from and what of them is known; both are null without a teacher.
    `form`: of the divergences, `exact`, or `lower_bound` where the teacher's most probable tokens are compared and, as one outcome, the
    rest; null where there are none.
    `left_out`: texts that could not be compared, by reason.
    """

    model_config = _STRICT
    source: Literal["live", "cache", "served"] | None = None
    outputs: Literal["hidden_states", "top_k", "text_log_probabilities"] | None = None
    form: Literal["exact", "lower_bound"] | None = None
    space: Literal["vocabulary", "shared_vocabulary"] | None = None
    space_size: int | None = None
    texts: int = 0
    left_out: dict[str, int] = {}
    values: dict[DistanceName, DistanceValue]


class DistanceRecord(BaseModel):
    """`distances.json` of one model on one task. `teacher` is the one that it is compared with, of several each has a record."""

    model_config = _STRICT
    schema_version: Literal[1] = 1
    cell: RecordCell
    teacher: Printable
    identity: Identity
    top_k: Annotated[int, Field(description="of how many of the most probable tokens of each the overlap is taken")]
    texts: dict[TextName, TextDistances]
    cost: Cost = Cost()
    environment: Environment


def read_distances(root: Path) -> tuple[list[DistanceRecord], list[str]]:
    """The records of distances under a run's folder, and a message for each that cannot be read."""
    records, problems = [], []
    for path in sorted(root.rglob(DISTANCES)):
        if ".harness" in path.parts:
            continue
        try:
            records.append(DistanceRecord.model_validate_json(path.read_text(encoding="utf-8")))
        except ValidationError as error:
            first = error.errors()[0]
            problems.append(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path}: {error}")
    return records, problems

"""The result schema: what `result.json` holds. Jobs write it, tables read it, and neither knows the other.

Scores are 0 to 100. There is no NaN: a value that does not exist is null and says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from harness.protocols import GREEDY, Protocol, column_title
from harness.runs.identity import Identity

_STRICT = ConfigDict(extra="forbid")


# A record may come from elsewhere, and names go into tables, terminals and LaTeX: no control characters, no line ends.
Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\z")]


class RecordCell(BaseModel):
    """What the record is about.

    A teacher's own record has the method `teacher` and neither student nor seed; a training has neither task nor protocol. An
    evaluation without a protocol is one from before there were any: greedy.
    """

    model_config = _STRICT
    teacher: Printable
    student: Printable | None
    method: Printable
    seed: int | None
    task: Printable | None = None
    task_version: Printable | None = None
    protocol: Protocol | None = None

    @model_validator(mode="after")
    def _greedy_by_default(self) -> RecordCell:
        if self.task is not None and self.protocol is None:
            self.protocol = GREEDY
        return self

    @property
    def column(self) -> str | None:
        """What its scores stand under in a table; unequal for unequal protocols. None for a training."""
        return None if self.task is None else column_title(self.task, self.protocol.label if self.protocol else None)


class Counts(BaseModel):
    """Samples: all, those with a score, and among them or beside them those with a flaw."""

    model_config = _STRICT
    total: int
    scored: int
    invalid: int
    truncated: int
    harness_error: int


class MetricValue(BaseModel):
    """One metric over all samples; `value` null only with a `reason`."""

    model_config = _STRICT
    value: FiniteFloat | None
    stderr: FiniteFloat | None = None
    ci95: tuple[FiniteFloat, FiniteFloat] | None = None
    ci_method: str | None = None
    higher_is_better: bool = True
    n: int | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> MetricValue:
        if self.value is None and not self.reason:
            raise ValueError("a metric without value needs a reason")
        return self


class Cost(BaseModel):
    """What it took, as measured by the job. Times in seconds; memory in bytes, of the job's largest process at its peak.

    `train_seconds` includes `teacher_seconds`, the part spent in the teacher. `teacher_examples`: examples that the teacher was run
    on in this job. `signal_seconds`, `signal_examples`: what the teacher's signal took once; every training that read it has the
    same numbers, so they are never to be added up. `tokens`: trained on (counted as often as seen), or generated.
    `processes`: that trained together; counts are of all of them, times of the first. `peak_memory` is resident memory;
    `peak_device_memory` that of a GPU, null without one. A training that was resumed measured only its last part: its
    times and counts are null, and `reason` says so.
    """

    model_config = _STRICT
    train_seconds: FiniteFloat | None = None
    teacher_seconds: FiniteFloat | None = None
    teacher_examples: int | None = None
    signal_seconds: FiniteFloat | None = None
    signal_examples: int | None = None
    wall_seconds: FiniteFloat | None = None
    tokens: int | None = None
    tokens_per_second: FiniteFloat | None = None
    processes: int | None = None
    peak_memory: int | None = None
    peak_device_memory: int | None = None
    memory_unit: Literal["bytes"] = "bytes"
    reason: str | None = None


class SandboxUsed(BaseModel):
    """How generated programs were isolated, and for each probe of the self-test "held" or what happened (docs/sandbox.md)."""

    model_config = _STRICT
    isolation: Printable
    probes: dict[str, Printable]


class Environment(BaseModel):
    """What it ran on; no names of machines or people, no paths."""

    model_config = _STRICT
    versions: dict[str, str | None]
    python: str
    platform: str
    device: str
    threads: int
    cpu: Annotated[str | None, Field(description="the processor's kind; null in older records")] = None
    commit: str | None = None
    dirty: bool | None = None
    engine: str | None = None
    sandbox: SandboxUsed | None = None


class RecordTemplate(BaseModel):
    """The template that the model was asked in; `sha256` is of what it writes around an instruction, its end of turn included."""

    model_config = _STRICT
    kind: Literal["alpaca", "chat"]
    system: str | None = None
    sha256: str


class DataOverlap(BaseModel):
    """How many of the test `items` stand in one training set of the model's or its teacher's (harness/evaluation/contamination.py, docs/data.md).

    `exact`: the whole question is that of one of its `examples`; `exact_with_answer`: and the answer is the same; `ngram`: `n`
    words of the question stand in a row in an example, or all of them where it has fewer, as `short` of the items have. Where it
    was not measured these are null, and `reason` says why; `data` is null where the training set is not known.
    """

    model_config = _STRICT
    of: Literal["student", "teacher"]
    data: Printable | None
    items: int | None = None
    examples: int | None = None
    n: int | None = None
    short: int | None = None
    exact: int | None = None
    exact_with_answer: int | None = None
    ngram: int | None = None
    reason: Printable | None = None

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> DataOverlap:
        if self.items is None and not self.reason:
            raise ValueError("an overlap that was not measured needs a reason")
        return self


class Record(BaseModel):
    """`result.json` of one training or of one model on one task."""

    model_config = _STRICT
    schema_version: Literal[1] = 1
    cell: RecordCell
    identity: Identity
    status: Literal["done", "failed"]
    n: Counts | None = None
    headline: Annotated[str | None, Field(description="the metric that tables show")] = None
    metrics: dict[str, MetricValue] = Field(default_factory=dict)
    cost: Cost = Cost()
    environment: Environment
    error: str | None = None
    template: Annotated[RecordTemplate | None, Field(description="null: the task's own prompts, as they stand")] = None
    overlap: Annotated[
        list[DataOverlap] | None, Field(description="test items in training data; null: not looked for")
    ] = None

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if self.status == "failed" and not self.error:
            raise ValueError("a failed record needs its error")
        if self.status == "done" and self.cell.task is not None:
            if self.n is None:
                raise ValueError("an evaluation needs n")
            if self.headline not in self.metrics:
                raise ValueError(f"the headline metric {self.headline!r} is not among the metrics")
        return self


def read_record(path: Path) -> Record:
    """A record from its file; ValueError with one line where it does not parse or does not fit the schema."""
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None

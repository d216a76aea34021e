"""The schema of `result.json`, which jobs write and tables read.

Scores are 0 to 100. There is no NaN: a missing value is null and has a reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from harness.protocols import GREEDY, DecodingProtocol, column_title
from harness.runs.identity import Identity
from harness.tuning.records import TuningRecord

_STRICT = ConfigDict(extra="forbid", defer_build=True)


# Records may come from other people, and names go into tables, terminals and LaTeX: no control characters, no line ends.
Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\z")]


class RecordCell(BaseModel):
    """The model, and for an evaluation the task, that a record belongs to.

    The record of a teacher has the method `teacher` and neither student nor seed. A training has neither task nor protocol. Old
    evaluations without a protocol are greedy.
    """

    model_config = _STRICT
    teacher: Printable
    student: Printable | None
    method: Printable
    seed: int | None
    task: Printable | None = None
    task_version: Printable | None = None
    protocol: DecodingProtocol | None = None

    @model_validator(mode="after")
    def _greedy_by_default(self) -> RecordCell:
        if self.task is not None and self.protocol is None:
            self.protocol = GREEDY
        return self

    @property
    def key(self) -> str:
        """The whole cell as one string; equal for records of the same thing."""
        return self.model_dump_json()

    @property
    def protocol_label(self) -> str:
        """The label of the decoding protocol of an evaluation."""
        return (self.protocol or GREEDY).label

    @property
    def column(self) -> str | None:
        """The table column of its scores, one for each task and decoding protocol. None for a training."""
        return None if self.task is None else column_title(self.task, self.protocol_label)


_LATER = Field(exclude_if=lambda value: value is None)


class Counts(BaseModel):
    """Numbers of samples: all, those with a score, and those with a flaw."""

    model_config = _STRICT
    total: int
    scored: int
    invalid: int
    truncated: int
    harness_error: int


class MetricValue(BaseModel):
    """One metric over all samples. `value` is null only with a `reason`."""

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


class ReasoningUse(BaseModel):
    """What a model reasoned before its answers on one task (docs/reasoning.md). Tokens are means over all samples.

    `tokens_per_solved` is all tokens for each solved sample; null if nothing is solved, or if samples are not right or wrong. What
    older records do not say is absent.
    """

    model_config = _STRICT
    samples: int  # with reasoning
    never_ended: int  # no answer
    never_ended_share: FiniteFloat  # per cent of all samples
    reasoning_cut: Annotated[int | None, _LATER] = None  # at a limit of tokens
    reasoning_cut_share: Annotated[FiniteFloat | None, _LATER] = None  # per cent of all samples
    reasoning_closed: Annotated[int | None, _LATER] = None  # of these, those that were closed for the model
    answers_cut: int  # answers that a token limit cut off
    answers_cut_share: Annotated[FiniteFloat | None, _LATER] = None  # per cent of all samples
    tokens: FiniteFloat | None = None
    reasoning_tokens: FiniteFloat | None = None
    answer_tokens: FiniteFloat | None = None
    tokens_per_solved: FiniteFloat | None = None


class CategoryValue(BaseModel):
    """The headline metric in one category of a task's documents, and how many problems it has. Null if none could be scored."""

    model_config = _STRICT
    value: FiniteFloat | None
    n: int


class Cost(BaseModel):
    """The cost of a job, as it measured it. Times in seconds; memory in bytes, at the peak of its largest process.

    The times and counts of a training that was resumed are those of all its starts, each up to the checkpoint that the next went on from;
    its `wall_seconds` are null, and `reason` says why. The teacher cache is
    computed once: trainings that read the same cache have the same `signal_seconds`, so do not add them up.
    """

    model_config = _STRICT
    train_seconds: FiniteFloat | None = None  # includes teacher_seconds
    teacher_seconds: FiniteFloat | None = None
    teacher_examples: int | None = None  # for which the teacher was run in this job
    signal_seconds: FiniteFloat | None = None  # of the teacher cache
    signal_examples: int | None = None  # of the teacher cache
    wall_seconds: FiniteFloat | None = None
    tokens: int | None = None  # trained on (as often as seen), or generated
    tokens_per_second: FiniteFloat | None = None
    tokens_per_solved: Annotated[FiniteFloat | None, _LATER] = None  # generated, for each sample that is right
    distilled_share: Annotated[FiniteFloat | None, _LATER] = None  # of labels, that a teacher's terms taught
    processes: int | None = None  # that trained together; counts are of all of them, times of the first
    peak_memory: int | None = None  # resident
    peak_device_memory: int | None = None  # of a GPU
    memory_unit: Literal["bytes"] = "bytes"
    reason: str | None = None


class SandboxUsed(BaseModel):
    """How generated programs were isolated, and the result of each probe of the self-test (docs/sandbox.md)."""

    model_config = _STRICT
    isolation: Printable
    probes: dict[str, Printable]


class Environment(BaseModel):
    """Where a job ran; no names of machines or people, no paths."""

    model_config = _STRICT
    versions: dict[str, str | None]
    python: str
    platform: str
    device: str
    threads: int
    cpu: Annotated[str | None, Field(description="the processor model; null in older records")] = None
    commit: str | None = None
    dirty: bool | None = None
    engine: str | None = None
    sandbox: SandboxUsed | None = None


class RecordTemplate(BaseModel):
    """The prompt template. `sha256` is of the text around an instruction, including the end of turn.

    `arguments` and `reasoning` are absent where the chat template is given none and the reasoning is cut from training.
    """

    model_config = _STRICT
    kind: Literal["alpaca", "chat"]
    system: str | None = None
    arguments: Annotated[dict[str, Any], Field(exclude_if=lambda value: not value)] = {}
    reasoning: Annotated[Literal["cut", "keep", "train"], Field(exclude_if=lambda value: value == "cut")] = "cut"
    sha256: str


class DataOverlap(BaseModel):
    """Contamination: how many test items occur in one training set of the model or of its teacher (docs/data.md).

    All counts are null if it was not measured; then `reason` says why.
    """

    model_config = _STRICT
    of: Literal["student", "teacher"]
    data: Printable | None  # the training set; null if it is not known
    items: int | None = None
    examples: int | None = None
    n: int | None = None  # the length of the word n-grams
    short: int | None = None  # items with fewer than n words, which are compared with all their words
    exact: int | None = None  # items whose question is that of an example
    exact_with_answer: int | None = None  # items whose answer is the same too
    ngram: int | None = None  # items that share n consecutive words with an example
    reason: Printable | None = None

    @model_validator(mode="after")
    def _null_has_a_reason(self) -> DataOverlap:
        if self.items is None and not self.reason:
            raise ValueError("a contamination that was not measured needs a reason")
        return self


class TextUsed(BaseModel):
    """Who wrote the text that a student was trained on, as shares of its examples (docs/text.md).

    `student` is null where a schedule decides. `prompts` are those that the teacher was to answer, or of a mixture all; `without_text` are
    those of them that it gave no response for that is kept. Both are absent where the teacher wrote nothing.
    """

    model_config = _STRICT
    data: FiniteFloat
    teacher: FiniteFloat
    student: FiniteFloat | None
    prompts: Annotated[int | None, _LATER] = None
    without_text: Annotated[int | None, _LATER] = None


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
    template: Annotated[
        RecordTemplate | None, Field(description="null: the task's own prompts, without a template")
    ] = None
    overlap: Annotated[
        list[DataOverlap] | None, Field(description="test items in training data; null: not examined")
    ] = None
    reasoning: Annotated[
        ReasoningUse | None,
        Field(description="absent: no sample has reasoning", exclude_if=lambda value: value is None),
    ] = None
    text: Annotated[
        TextUsed | None,
        Field(
            description="absent: the data wrote all of it, or an older record", exclude_if=lambda value: value is None
        ),
    ] = None

    tuning: Annotated[
        TuningRecord | None,
        Field(description="absent: the setting was not tuned", exclude_if=lambda value: value is None),
    ] = None
    categories: Annotated[
        dict[str, CategoryValue],
        Field(description="absent: documents have no categories", exclude_if=lambda value: not value),
    ] = {}

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
    """Read a record.

    Raises:
        ValueError: the file cannot be read or does not fit the schema. The message is one line.
    """
    try:
        return Record.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None

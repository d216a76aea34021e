"""Settings in a matrix: of tasks, evaluations, teacher outputs and caches, of processes, and of methods and their variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from dskd.text import Text
from harness.config.strict import Strict, only_known
from harness.protocols import GREEDY, PROTOCOLS, DecodingProtocol, Seed
from harness.suggestions import did_you_mean

TaskName = Annotated[  # lm_eval/NAME is lm-eval's task of that name, FILE.py:CLASS one of the user's own
    str,
    StringConstraints(
        pattern=r"^(lm_eval/[A-Za-z0-9][A-Za-z0-9._-]*|[A-Za-z0-9]([._-]?[A-Za-z0-9]+)*|[^\s:]+\.py:[A-Za-z_]\w*)(:validation)?$",
        max_length=400,
    ),
]


def _preset(value: Any) -> Any:
    """A protocol by its name, or `{name: …}` with settings that replace those of the preset."""
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        return given
    name = only_known(given, DecodingProtocol).get("name", "")
    if name not in PROTOCOLS:
        missing = f"no protocol {name!r}" if name else "has no `name` of a protocol"
        raise ValueError(f"{missing}{did_you_mean(str(name), PROTOCOLS)}")
    return {**PROTOCOLS[name].settings, **given}


class TaskSettings(Strict):
    """How a task is evaluated.

    Attributes:
        task: The task, if the entry has another name; one task may have several entries.
        max_reasoning_tokens: What a model that reasons may write before its answer's `max_new_tokens`.
        reasoning_end: What becomes of reasoning at that limit: `cut`, no answer; `close`, the model answers after it.
        other_prompts: Whether its prompts may differ from those that the models were trained on.
    """

    task: TaskName | None = None
    protocol: Annotated[DecodingProtocol, BeforeValidator(_preset)] = GREEDY
    limit: int | None = Field(default=None, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    max_reasoning_tokens: int | None = Field(default=None, ge=1)
    reasoning_end: Literal["cut", "close"] | None = None
    other_prompts: bool = False

    @model_validator(mode="after")
    def _an_end_of_what_has_a_limit(self) -> TaskSettings:
        if self.reasoning_end is not None and not (self.max_reasoning_tokens or self.protocol.max_reasoning_tokens):
            raise ValueError(
                "`reasoning_end` means nothing without max_reasoning_tokens; set it too, or leave both out"
            )
        return self

    def with_limits_of_reasoning(self) -> DecodingProtocol:
        """The protocol with the limit of reasoning and its end that are set here."""
        return self.protocol.with_reasoning(self.max_reasoning_tokens, self.reasoning_end)


def _transformers_spreads_nothing(engine: str, tensor_parallel: int) -> None:
    if engine == "transformers" and tensor_parallel > 1:
        raise ValueError(
            "`tensor_parallel` means nothing with engine: transformers; fix: engine: vllm, or leave it out"
        )


class Evaluation(Strict):
    """How models are evaluated.

    Attributes:
        parts: Processes that share the items of an evaluation, each with the whole model and GPUs of its own.
        tensor_parallel: GPUs that vLLM spreads a model over, in each of them.
        distances: Whether each student is compared with its teacher on the texts of the evaluation, too.
    """

    engine: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_batch_size: int | None = Field(default=None, ge=1)
    seed: Seed = 0
    score_teachers: bool = True
    parts: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    distances: bool = False

    @property
    def answering(self) -> dict[str, Any]:
        """The settings of what answers, in evaluations and for a teacher's responses."""
        return self.model_dump(exclude={"score_teachers", "distances"})

    @model_validator(mode="after")
    def _spread_by_vllm(self) -> Evaluation:
        _transformers_spreads_nothing(self.engine, self.tensor_parallel)
        return self


class TeacherOutputs(Strict):
    """What students learn from, and how it is stored.

    Attributes:
        kind: `hidden_states`, `top_k` and `text_log_probabilities` are computed once for each teacher and data set, into a cache that all
            students, methods and seeds share; `live` asks the teacher for hidden states in every training.
        live: Ask the teacher in every training, for outputs of this kind; `top_k` and `text_log_probabilities` of a served one.
        stored_dtype: Of cached hidden states; `same` gives the results of a live teacher.
        k: The number of most probable tokens of each distribution of `top_k`.
        temperature: Of the distributions in a `top_k` cache; that of the methods that learn from it.
    """

    kind: Literal["hidden_states", "top_k", "text_log_probabilities", "live"] = "hidden_states"
    live: bool = False
    stored_dtype: Literal["same", "float16", "bfloat16"] = "same"
    k: int = Field(default=64, ge=1)
    temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _only_what_the_kind_has(self) -> TeacherOutputs:
        for key in sorted(self.model_fields_set - {"kind", "live", *self.options}):
            kind = f"{self.kind}, live: true" if self.live else self.kind
            raise ValueError(f"`{key}` means nothing with kind: {kind}; fix: leave it out")
        return self

    @property
    def is_live(self) -> bool:
        """Whether the teacher is asked in every training."""
        return self.live or self.kind == "live"

    @property
    def asked_live(self) -> TeacherOutputs:
        """The same from a teacher that is asked in every training, where that gives the very numbers; else these."""
        same = self.kind == "hidden_states" and self.stored_dtype == "same"
        return TeacherOutputs(kind="live") if same and not self.is_live else self

    @property
    def options(self) -> dict[str, Any]:
        """The options that can change the outputs. They are a part of identities."""
        if self.live:
            kind = "live" if self.kind == "hidden_states" else self.kind
            return (
                {"kind": kind} | ({"k": self.k} if kind == "top_k" else {}) | ({"live": True} if kind != "live" else {})
            )
        has = {"hidden_states": ("stored_dtype",), "top_k": ("k", "temperature")}.get(self.kind, ())
        return {"kind": self.kind, **{key: getattr(self, key) for key in has}}


class TeacherCaches(Strict):
    """How teacher caches are computed.

    Attributes:
        engine: `auto` takes vLLM where there is a GPU and vLLM runs the model, else transformers.
        tensor_parallel: GPUs that vLLM spreads a teacher over.
    """

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    tensor_parallel: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _spread_by_vllm(self) -> TeacherCaches:
        _transformers_spreads_nothing(self.engine, self.tensor_parallel)
        return self


class Launch(Strict):
    """The number of processes that train one student, and an `accelerate` configuration: a shipped name, or a file.

    Without either, one process. With a configuration alone, as many as it says.
    """

    processes: int | None = Field(default=None, ge=1)
    accelerate_config: str | None = None


# Former names of keys of a matrix and of an entry of `methods`.
RENAMED = {"teacher_signal": "teacher_outputs"}


class MethodSettings(Strict):
    """Settings of a method, or of a variant of one under another name. Options of the method are written beside these keys.

    Attributes:
        method: The method that this is a variant of.
        training: Training options that replace those of the matrix, one by one.
        teacher_outputs: Replaces those of the matrix as a whole.
        text: Who writes the text that it learns from, in place of the matrix's or the pair's.
        axes: Where it stands on the axes of the matrix: `{rate: low}`. In a file, a list of the axes that it is combined with.
        options: The options of the method.
    """

    known_keys = ("method", "axes", "training", "teacher_outputs", "text")

    method: str | None = None
    axes: dict[str, str] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    teacher_outputs: TeacherOutputs | None = None
    text: Text | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("training")
    @classmethod
    def _same_examples(cls, training: dict[str, Any]) -> dict[str, Any]:
        for key in sorted({"data", "max_length"} & set(training)):
            raise ValueError(f"`{key}` is the same for all methods of a matrix; fix: leave it out here")
        return training


# Of two options that exclude each other, one that is set replaces the other one that is inherited.
ALTERNATIVES = {"steps": "epochs", "epochs": "steps", "batch_size": "batch_tokens", "batch_tokens": "batch_size"}


def merge_training(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Training options that replace shared ones."""
    replaced = {ALTERNATIVES.get(key) for key in own}
    return {key: value for key, value in shared.items() if key not in replaced} | dict(own)

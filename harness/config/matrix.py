"""A matrix as pydantic models, and its cells.

A matrix says which students are distilled from which teachers, by which methods, on which data, with which seeds, and on which
tasks they are evaluated. `harness.config.matrix_file` reads a file and checks the names in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from harness.config.resources import ResourceRequest
from harness.config.served import ServedSource, TeachersSource
from harness.config.sources import DataSource, FirstLayersModel, ModelSource, StepModel, Training
from harness.config.strict import Name, Strict, only_known
from harness.protocols import GREEDY, PROTOCOLS, DecodingProtocol, Seed
from harness.suggestions import did_you_mean

SCHEMA_VERSION = 1

# The method name under which a teacher's own scores stand in records and tables.
TEACHER_METHOD = "teacher"

TaskName = Annotated[  # lm_eval/NAME is lm-eval's task of that name, FILE.py:CLASS one of the user's own
    str,
    StringConstraints(
        pattern=r"^(lm_eval/[A-Za-z0-9][A-Za-z0-9._-]*|([A-Za-z0-9]([._-]?[A-Za-z0-9]+)*|[^\s:]+\.py:[A-Za-z_]\w*)(:validation)?)$",
        max_length=400,
    ),
]


class Pair(Strict):
    teacher: Name
    student: Name
    methods: list[Name] = Field(min_length=1)


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
    """

    engine: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_batch_size: int | None = Field(default=None, ge=1)
    seed: Seed = 0
    score_teachers: bool = True
    parts: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)

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
        options: The options of the method.
    """

    known_keys = ("method", "training", "teacher_outputs")

    method: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    teacher_outputs: TeacherOutputs | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("training")
    @classmethod
    def _same_examples(cls, training: dict[str, Any]) -> dict[str, Any]:
        for key in sorted({"data", "max_length"} & set(training)):
            raise ValueError(f"`{key}` is the same for all methods of a matrix; fix: leave it out here")
        return training


# Of two options that exclude each other, one that is set replaces the other one that is inherited.
_ALTERNATIVES = {"steps": "epochs", "epochs": "steps", "batch_size": "batch_tokens", "batch_tokens": "batch_size"}


def merge_training(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Training options that replace shared ones."""
    replaced = {_ALTERNATIVES.get(key) for key in own}
    return {key: value for key, value in shared.items() if key not in replaced} | dict(own)


class Matrix(Strict):
    schema_version: Literal[1]
    name: Name
    description: str = ""
    data: dict[Name, DataSource] = Field(min_length=1)
    models: dict[Name, ModelSource] = Field(min_length=1)
    pairs: list[Pair] = Field(min_length=1)
    methods: dict[Name, MethodSettings] = Field(default_factory=dict)
    training: Training
    teacher_outputs: TeacherOutputs = TeacherOutputs()
    teacher_cache: TeacherCaches = TeacherCaches()
    launch: Launch = Launch()
    resources: dict[str, ResourceRequest] = Field(default_factory=dict)
    seeds: list[Seed] = Field(min_length=1)
    tasks: dict[TaskName, TaskSettings]  # {} trains without evaluating
    evaluation: Evaluation = Evaluation()

    def method_of(self, name: str) -> str:
        """The method of a name in a pair: the name itself, or `methods.NAME.method` of a variant."""
        return self._settings(name).method or name

    def method_options(self, name: str) -> dict[str, Any]:
        """The options that `methods` gives to a name in a pair."""
        return self._settings(name).options

    def training_of(self, name: str) -> Training:
        """The training of a name in a pair: `training`, with the options of `methods.NAME.training` replaced."""
        options = merge_training(self.training.options, self._settings(name).training)
        return self.training.model_copy(update={"options": options})

    def outputs_of(self, name: str) -> TeacherOutputs:
        """The teacher outputs of a name in a pair: `methods.NAME.teacher_outputs`, or `teacher_outputs`."""
        return self._settings(name).teacher_outputs or self.teacher_outputs

    def place(self, name: str, *keys: str) -> str:
        """The key that holds a setting of a name in a pair, or can: `methods.NAME.training.rollouts`, `training.rollouts`."""
        settings = self._settings(name)
        if keys[0] == "teacher_outputs":
            own = settings.teacher_outputs is not None or settings.method is not None
        else:
            own = keys[-1] in settings.training or keys[-1] not in self.training.options
        return ".".join(("methods", name, *keys) if own else keys)

    def bases_of(self, name: str) -> list[str]:
        """The models that a model is made from."""
        source = self.models[name]
        if isinstance(source, FirstLayersModel):
            return [source.layers_of]
        if isinstance(source, TeachersSource):
            return source.names
        given = source.options.values() if isinstance(source, StepModel) else ()
        named = [item for value in given for item in (value if isinstance(value, list) else [value])]
        return [item for item in named if isinstance(item, str) and item in self.models]

    def members(self, teacher: str) -> list[str]:
        """The models that a teacher of a pair stands for: itself, or several."""
        source = self.models[teacher]
        return source.names if isinstance(source, TeachersSource) else [teacher]

    @property
    def scored_teachers(self) -> list[str]:
        """The teachers that are evaluated themselves: those that are models here, not behind an address."""
        names = dict.fromkeys(member for pair in self.pairs for member in self.members(pair.teacher))
        return [name for name in names if not isinstance(self.models[name], ServedSource)]

    def task_of(self, entry: str) -> str:
        """The task of an entry of `tasks`: its `task`, or its name."""
        return self.tasks[entry].task or entry

    def protocol_of(self, entry: str, max_new_tokens: int) -> DecodingProtocol:
        """The protocol of an entry of `tasks`, whose task allows `max_new_tokens` by default."""
        settings = self.tasks[entry]
        return settings.with_limits_of_reasoning().with_length(settings.max_new_tokens, max_new_tokens)

    def _settings(self, name: str) -> MethodSettings:
        return self.methods.get(name, MethodSettings())

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("the same seed is given twice; fix: give each once")
        return seeds

    @field_validator("tasks", mode="before")
    @classmethod
    def _empty_settings(cls, tasks: Any) -> Any:
        # `gsm8k:` alone is the natural way to write "with its own settings" in YAML.
        return {name: {} if s is None else s for name, s in tasks.items()} if isinstance(tasks, Mapping) else tasks


@dataclass(frozen=True, order=True)
class Cell:
    """What is evaluated: a student trained by a method with a seed, or (without student and seed) a teacher itself."""

    teacher: str
    student: str | None
    method: str
    seed: int | None

    @property
    def folder(self) -> str:
        """Its folder under `cells/`, and its name on the command line."""
        if self.student is None:
            return f"{self.teacher}/{TEACHER_METHOD}"
        return f"{self.teacher}__{self.student}/{self.method}/seed{self.seed}"


def cells(matrix: Matrix) -> list[Cell]:
    """Every cell of a matrix: the teachers that can be scored once each, then pair by pair, method by method, seed by seed."""
    found: list[Cell] = []
    if matrix.evaluation.score_teachers:
        found += [Cell(name, None, TEACHER_METHOD, None) for name in matrix.scored_teachers]
    for pair in matrix.pairs:
        found += [Cell(pair.teacher, pair.student, m, s) for m in pair.methods for s in matrix.seeds]
    return found

"""The matrix file as pydantic models, and its expansion into cells.

A matrix says which students are distilled from which teachers, by which methods, on which data, with which seeds, and on which
tasks they are evaluated. Here is its shape only: `harness.config.matrix_file` reads a file and checks what it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from dskd.data.columns import template_columns
from dskd.tokenization.prompt_templates import Template
from harness.protocols import GREEDY, PROTOCOLS, Protocol
from harness.suggestions import did_you_mean

SCHEMA_VERSION = 1

# The method name under which a teacher's own scores stand in records and tables.
TEACHER_METHOD = "teacher"


class Strict(BaseModel):
    """A part of the matrix that accepts only the keys it knows, and says which one was meant."""

    model_config = ConfigDict(extra="forbid")
    collects_options: ClassVar[bool] = False
    renamed: ClassVar[Mapping[str, str]] = {}  # keys that had another name, by that name

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = {cls.renamed.get(key, key): item for key, item in value.items()}
        if isinstance(value, Mapping) and not cls.collects_options:
            for key in value:
                if key not in cls.model_fields:
                    hint = did_you_mean(str(key), cls.model_fields)
                    raise PydanticCustomError("unknown_key", "unknown key{hint}", {"key": str(key), "hint": hint})
        return value


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([._-]?[A-Za-z0-9]+)*$", max_length=80)]
TaskName = Annotated[  # lm_eval/NAME is lm-eval's task of that name
    str,
    StringConstraints(
        pattern=r"^([A-Za-z0-9]([._-]?[A-Za-z0-9]+)*|lm_eval/[A-Za-z0-9][A-Za-z0-9._-]*)$", max_length=120
    ),
]
SmallTokenizer = Literal["bytelevel", "sentencepiece"]


# --- training data --------------------------------------------------------------------------------------------------------------


class SmallWorldData(Strict):
    """One of the training sets that the small world generates."""

    small_world: Literal["teacher", "student", "pretraining"]
    limit: int | None = Field(default=None, ge=1)


class FileData(Strict):
    """A JSON-lines file of the user's.

    Lines hold `prompt` and `output`, or for models with a template `instruction`, `output` and perhaps `input`; where the columns
    have other names, these keys here are made of them, as in `prompt: "Question: {question}\\nAnswer:"`.
    """

    file: str
    limit: int | None = Field(default=None, ge=1)
    prompt: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None

    @property
    def columns(self) -> dict[str, str] | None:
        """What each key of an example is made of; None where the lines have the keys themselves."""
        found = {key: getattr(self, key) for key in ("prompt", "instruction", "input", "output")}
        return {key: text for key, text in found.items() if text is not None} or None

    @field_validator("prompt", "instruction", "input", "output")
    @classmethod
    def _plain_columns(cls, template: str | None) -> str | None:
        if template is not None:
            template_columns(template)
        return template

    @model_validator(mode="after")
    def _both_templates(self) -> FileData:
        if set(self.columns or ()) not in (
            set(), {"prompt", "output"}, {"instruction", "output"}, {"instruction", "input", "output"},
        ):  # fmt: skip
            raise ValueError(
                "these keys go together: `prompt` and `output`, or `instruction`, `output` and perhaps `input`; give all or none"
            )
        return self


DATA_KINDS: dict[str, type[Strict]] = {"small_world": SmallWorldData, "file": FileData}


# --- models ---------------------------------------------------------------------------------------------------------------------


class TokenizerSource(Strict):
    """Where a new model's tokenizer comes from: the small world, or a folder."""

    small_world: SmallTokenizer | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> TokenizerSource:
        if (self.small_world is None) == (self.path is None):
            raise ValueError("needs one of: small_world, path")
        return self


class Training(Strict):
    """A training set by name, and the options of `dskd.training.run.TrainingOptions`, which are written beside it."""

    collects_options: ClassVar[bool] = True

    data: Name
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect_options(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            data = {"data": value["data"]} if "data" in value else {}
            return {**data, "options": {str(key): item for key, item in value.items() if key != "data"}}
        return value


def _named_template(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


PromptTemplate = Annotated[Template, BeforeValidator(_named_template)]


class PathModel(Strict):
    """An ordinary model folder, taken as it is.

    `add_bos_token: true` works on a copy whose tokenizer adds its begin-of-sequence token: for a model that was pretrained with
    one but whose folder lost the habit, as conversions from other formats do.
    `template` asks it by instructions, in training and in evaluation: `alpaca`, `chat` (the tokenizer's own), or
    `{kind: chat, system: "…"}`.
    """

    path: str
    add_bos_token: bool = False
    template: PromptTemplate | None = None


class NewModel(Strict):
    """A model from random weights; the vocabulary size and the special ids come from the tokenizer. `template`: as of a `path`."""

    template: PromptTemplate | None = None
    config: dict[str, Any]
    tokenizer: TokenizerSource
    seed: int = Field(ge=0)
    training: list[Training] = Field(default_factory=list)

    @field_validator("config")
    @classmethod
    def _has_model_type(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("model_type"), str):
            raise ValueError("needs `model_type`, for example llama or gpt2")
        return config


class FirstLayersModel(Strict):
    """The first layers of another model of this matrix, with its embedding, final norm and head."""

    layers_of: Name
    layers: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    training: list[Training] = Field(default_factory=list)


MODEL_KINDS: dict[str, type[Strict]] = {"path": PathModel, "config": NewModel, "layers_of": FirstLayersModel}


def _kind_by_key(kinds: Mapping[str, type[Strict]]) -> Discriminator:
    """Choose a union's member by the key that only it has, so that an error speaks of that member alone."""

    def choose(value: Any) -> str | None:
        if isinstance(value, Mapping):
            return next((key for key in kinds if key in value), None)
        return next((key for key, kind in kinds.items() if isinstance(value, kind)), None)

    return Discriminator(
        choose, custom_error_type="needs_one_of", custom_error_message=f"needs one of the keys: {', '.join(kinds)}"
    )


DataSource = Annotated[
    Annotated[SmallWorldData, Tag("small_world")] | Annotated[FileData, Tag("file")], _kind_by_key(DATA_KINDS)
]
ModelSource = Annotated[
    Annotated[PathModel, Tag("path")]
    | Annotated[NewModel, Tag("config")]
    | Annotated[FirstLayersModel, Tag("layers_of")],
    _kind_by_key(MODEL_KINDS),
]


# --- the matrix -----------------------------------------------------------------------------------------------------------------


class Pair(Strict):
    teacher: Name
    student: Name
    methods: list[Name] = Field(min_length=1)


def _preset(value: Any) -> Any:
    """A protocol by its name, or `{name: …}` with settings that take the place of the preset's."""
    given = {"name": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        return given
    for key in given:
        if key not in Protocol.model_fields:
            hint = did_you_mean(str(key), Protocol.model_fields)
            raise PydanticCustomError("unknown_key", "unknown key{hint}", {"key": str(key), "hint": hint})
    name = given.get("name", "")
    if name not in PROTOCOLS:
        missing = f"no protocol {name!r}" if name else "needs the `name` of a protocol"
        raise ValueError(f"{missing}{did_you_mean(str(name), PROTOCOLS)}")
    return {**PROTOCOLS[name].settings, **given}


class TaskSettings(Strict):
    """How one task is evaluated. `task`: which, where the entry has another name; one task may have several entries."""

    task: TaskName | None = None
    protocol: Annotated[Protocol, BeforeValidator(_preset)] = GREEDY
    limit: int | None = Field(default=None, ge=1)
    max_new_tokens: int | None = Field(default=None, ge=1)
    other_prompts: bool = False  # asked on purpose in other prompts than its models were trained on


class Evaluation(Strict):
    engine: str = "auto"
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_batch_size: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    score_teachers: bool = True


class TeacherOutputs(Strict):
    """What a teacher gives to its students, and how it is stored.

    `hidden_states` and `top_k` are computed once for each teacher and data set, into a cache that all students, methods and seeds
    share. `live` runs the teacher again in every training. `stored_dtype` belongs to `hidden_states` (`same`: equal to a live
    teacher). `k` and `temperature` belong to `top_k`: the k most probable tokens of each distribution, at the temperature of the
    methods that learn from it.
    """

    kind: Literal["hidden_states", "top_k", "live"] = "hidden_states"
    stored_dtype: Literal["same", "float16", "bfloat16"] = "same"
    k: int = Field(default=64, ge=1)
    temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _only_what_the_kind_has(self) -> TeacherOutputs:
        for key in sorted(self.model_fields_set - {"kind", *self.options}):
            raise ValueError(f"`{key}` means nothing with kind: {self.kind}; leave it out")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """What can change the outputs: the options of a teacher cache, and a part of identities."""
        has = {"hidden_states": ("stored_dtype",), "top_k": ("k", "temperature"), "live": ()}[self.kind]
        return {"kind": self.kind, **{key: getattr(self, key) for key in has}}


class Launch(Strict):
    """How many processes train one student, and an `accelerate` configuration for them: a name that ships, or a file.

    Without either, one process; with a configuration alone, as many as it says.
    """

    processes: int | None = Field(default=None, ge=1)
    accelerate_config: str | None = None


RENAMED = {"teacher_signal": "teacher_outputs"}


class MethodSettings(Strict):
    """Options of a method, written beside what else it may have of its own; with `method` a variant under another name.

    `training` takes the place of single options of the matrix's, which all other methods train with; `teacher_outputs` that of the
    matrix's whole.
    """

    collects_options: ClassVar[bool] = True
    renamed: ClassVar[Mapping[str, str]] = RENAMED
    own: ClassVar[tuple[str, ...]] = ("method", "training", "teacher_outputs")

    method: str | None = None
    training: dict[str, Any] = Field(default_factory=dict)
    teacher_outputs: TeacherOutputs | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _collect_options(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            value = {cls.renamed.get(key, key): item for key, item in value.items()}
            given = {key: value[key] for key in cls.own if key in value}
            return {**given, "options": {str(key): item for key, item in value.items() if key not in cls.own}}
        return value

    @field_validator("training")
    @classmethod
    def _same_examples(cls, training: dict[str, Any]) -> dict[str, Any]:
        for key in sorted({"data", "max_length"} & set(training)):
            raise ValueError(f"`{key}` says what all methods of a matrix learn from; leave it out here")
        return training


# Of two that exclude each other, a method's own takes the place of the matrix's other one.
_ALTERNATIVES = {"steps": "epochs", "epochs": "steps", "batch_size": "batch_tokens", "batch_tokens": "batch_size"}


class Matrix(Strict):
    renamed: ClassVar[Mapping[str, str]] = RENAMED

    schema_version: Literal[1]
    name: Name
    description: str = ""
    data: dict[Name, DataSource] = Field(min_length=1)
    models: dict[Name, ModelSource] = Field(min_length=1)
    pairs: list[Pair] = Field(min_length=1)
    methods: dict[Name, MethodSettings] = Field(default_factory=dict)
    training: Training
    teacher_outputs: TeacherOutputs = TeacherOutputs()
    launch: Launch = Launch()
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    tasks: dict[TaskName, TaskSettings]  # {} trains without evaluating
    evaluation: Evaluation = Evaluation()

    def method_of(self, name: str) -> str:
        """The method that a name in a pair stands for: itself, or what `methods.NAME.method` says (a variant)."""
        return self._settings(name).method or name

    def method_options(self, name: str) -> dict[str, Any]:
        """The options that `methods` gives to a name in a pair."""
        return self._settings(name).options

    def training_of(self, name: str) -> Training:
        """How a name in a pair is trained: as `training` says, but for what `methods.NAME.training` does."""
        own = self._settings(name).training
        replaced = {_ALTERNATIVES.get(key) for key in own}
        shared = {key: value for key, value in self.training.options.items() if key not in replaced}
        return self.training.model_copy(update={"options": shared | own})

    def outputs_of(self, name: str) -> TeacherOutputs:
        """What of the teacher a name in a pair learns from: `methods.NAME.teacher_outputs`, or `teacher_outputs`."""
        return self._settings(name).teacher_outputs or self.teacher_outputs

    def place(self, name: str, *keys: str) -> str:
        """Where the file says this of a name in a pair: `methods.NAME.training.rollouts`, or `training.rollouts`."""
        settings = self._settings(name)
        given = settings.teacher_outputs is not None if keys[0] == "teacher_outputs" else keys[-1] in settings.training
        return ".".join(("methods", name, *keys) if given else keys)

    def task_of(self, entry: str) -> str:
        """The task that an entry of `tasks` stands for: itself, or what its `task` says."""
        return self.tasks[entry].task or entry

    def protocol_of(self, entry: str, max_new_tokens: int) -> Protocol:
        """How an entry of `tasks` is answered, whose task itself allows so many tokens."""
        settings = self.tasks[entry]
        return settings.protocol.with_length(settings.max_new_tokens, max_new_tokens)

    def _settings(self, name: str) -> MethodSettings:
        return self.methods.get(name, MethodSettings())

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("the same seed stands twice; give each once")
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
        """Where it stands under `cells/`, and its name on the command line."""
        if self.student is None:
            return f"{self.teacher}/{TEACHER_METHOD}"
        return f"{self.teacher}__{self.student}/{self.method}/seed{self.seed}"


def cells(matrix: Matrix) -> list[Cell]:
    """Every cell of a matrix: the teachers once each, then pair by pair, method by method, seed by seed."""
    found: list[Cell] = []
    if matrix.evaluation.score_teachers:
        found += [Cell(t, None, TEACHER_METHOD, None) for t in dict.fromkeys(pair.teacher for pair in matrix.pairs)]
    for pair in matrix.pairs:
        found += [Cell(pair.teacher, pair.student, m, s) for m in pair.methods for s in matrix.seeds]
    return found

"""A matrix as pydantic models, and its cells.

A matrix says which students are distilled from which teachers, by which methods, on which data, with which seeds, and on which
tasks they are evaluated. `harness.config.matrix_file` reads a file, makes of its groups and axes what stands here, and checks the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator

from dskd.errors import InputError
from dskd.text import Text
from harness.config.cells import TEACHER_METHOD, Cell, trained_name
from harness.config.explain import dotted
from harness.config.partial import IncludedCell, PartialCell
from harness.config.resources import ResourceRequest
from harness.config.served import ServedSource, TeachersSource
from harness.config.settings import (
    Evaluation,
    Launch,
    MethodSettings,
    TaskName,
    TaskSettings,
    TeacherCaches,
    TeacherOutputs,
    merge_training,
)
from harness.config.sources import DataSource, FirstLayersModel, ModelSource, StepModel, Training
from harness.config.strict import Name, Strict, VariantName
from harness.config.texts import TAUGHT, named_method, options_of_taught, taught_text
from harness.config.tuning import SETTING, TUNED, Tuning
from harness.protocols import DecodingProtocol, Seed

__all__ = ["SCHEMA_VERSION", "TEACHER_METHOD", "Cell", "Matrix", "Pair"]

SCHEMA_VERSION = 1


class Pair(Strict):
    """A teacher and a student, and the methods between them.

    Attributes:
        data: The training set, where it is another than that of `training`.
    """

    file_keys = ("text",)

    teacher: Name
    student: Name
    methods: list[VariantName] = Field(min_length=1)
    data: Name | None = None


class Matrix(Strict):
    """What is trained and evaluated. The keys are those of docs/matrix.md and docs/sweeps.md, without what a file has shorter."""

    file_keys = ("extends", "axes")

    schema_version: Literal[1]
    name: Name
    description: str = ""
    data: dict[Name, DataSource] = Field(min_length=1)
    models: dict[Name, ModelSource] = Field(min_length=1)
    pairs: list[Pair] = Field(min_length=1)
    groups: dict[Name, list[str]] = Field(default_factory=dict)
    include: list[IncludedCell] = Field(default_factory=list)
    exclude: list[PartialCell] = Field(default_factory=list)
    methods: dict[VariantName, MethodSettings] = Field(default_factory=dict)
    training: Training
    teacher_outputs: TeacherOutputs = TeacherOutputs()
    teacher_cache: TeacherCaches = TeacherCaches()
    text: Text | None = None
    launch: Launch = Launch()
    resources: dict[str, ResourceRequest] = Field(default_factory=dict)
    seeds: list[Seed] = Field(min_length=1)
    tasks: dict[TaskName, TaskSettings]  # {} trains without evaluating
    evaluation: Evaluation = Evaluation()
    tuning: Tuning | None = None

    _where: Callable[[Sequence[Any]], str] | None = PrivateAttr(default=None)
    _resolved: dict[str, Any] = PrivateAttr(default_factory=dict)

    def read_from(self, where: Callable[[Sequence[Any]], str], resolved: dict[str, Any]) -> None:
        """Remember which file and key everything comes from, and its content as a file of its own would have it."""
        self._where, self._resolved = where, resolved

    def where(self, location: Sequence[Any], source: str) -> str:
        """`FILE: axes.rate.low.training.learning_rate`: what something in this matrix comes from.

        source: the file, for a matrix that was not read from one.
        """
        return self._where(location) if self._where is not None else f"{source}: {dotted(location)}"

    @property
    def resolved(self) -> dict[str, Any]:
        """Its content as a file of its own: with what it extends, its groups, axes and variables, and without secrets."""
        return self._resolved

    def method_of(self, name: str) -> str:
        """The method of a name in a pair: the name itself, or `methods.NAME.method` of a variant; `seqkd` for `sft` on the teacher's text."""
        return named_method(self._settings(name).method or name, self._given_text(name))

    def method_options(self, name: str) -> dict[str, Any]:
        """The options that `methods` gives to a name in a pair; of `seqkd` also what its `text` says of the teacher's responses."""
        own, text = self._settings(name).options, self._given_text(name)
        if self.method_of(name) != TAUGHT or text is None or text.only != "teacher":
            return own
        return options_of_taught(self._taught(name), own)

    def text_of(self, name: str) -> Text | None:
        """Who writes the text that a name in a pair is trained on: `methods.NAME.text`, or `text`.

        None where neither says it: then the data, and the student as `training.rollouts` has it.
        """
        text = self._given_text(name)
        if self.method_of(name) == TAUGHT and (text is None or text.only == "teacher"):
            return self._taught(name)
        return text

    def _given_text(self, name: str) -> Text | None:
        return self._settings(name).text or self.text

    def _taught(self, name: str) -> Text:
        try:
            return taught_text(self._given_text(name), self._settings(name).options)
        except InputError as error:
            raise InputError(f"{self.where(('methods', name), 'matrix')}.{error}") from None

    def training_of(self, name: str) -> Training:
        """The training of a name in a pair: `training`, with the options of `methods.NAME.training` and of `text` replaced.

        InputError where `text` and `training.rollouts` give the student different shares.
        """
        options = merge_training(self.training.options, self._settings(name).training)
        if (text := self._given_text(name)) is not None:
            given = options.pop("rollouts", None)
            try:
                rollouts = text.rollouts(given if isinstance(given, Mapping) else None)
            except InputError as error:
                raise InputError(f"{self.where(self._training_place(name), 'matrix')}.{error}") from None
            if rollouts is not None:
                options["rollouts"] = rollouts
        return self.training.model_copy(update={"options": options})

    def _training_place(self, name: str) -> tuple[str, ...]:
        return ("methods", name, "training") if "rollouts" in self._settings(name).training else ("training",)

    def outputs_of(self, name: str) -> TeacherOutputs:
        """The teacher outputs of a name in a pair: `methods.NAME.teacher_outputs`, or `teacher_outputs`.

        Of text that the student writes, a teacher that would give hidden states from a cache is asked for them live.
        """
        outputs = self._settings(name).teacher_outputs or self.teacher_outputs
        text = self._given_text(name)
        return outputs.asked_live if text is not None and text.student is not None else outputs

    def place(self, name: str, *keys: str) -> str:
        """The key of this matrix that holds a setting of a name in a pair, or can, as `location` has it."""
        return dotted(self.location(name, *keys))

    def location(self, name: str, *keys: str) -> tuple[str, ...]:
        """The keys that lead to a setting of a name in a pair: `methods.NAME.training.rollouts`, `training.rollouts`."""
        settings = self._settings(name)
        if keys[0] == "teacher_outputs":
            own = settings.teacher_outputs is not None or settings.method is not None
        elif keys[0] == "text":
            own = settings.text is not None or self.text is None
        else:
            own = keys[-1] in settings.training or keys[-1] not in self.training.options
        return ("methods", name, *keys) if own else keys

    def pair_place(self, teacher: str, trained: str, method: str) -> tuple[Any, ...]:
        """Where a pair and a method of it stand: `pairs.0.methods.1`, `include.2.method`. trained: as `Cell.trained`."""
        for index, pair in enumerate(self.pairs):
            if (pair.teacher, self.trained_name(pair.student, pair.data)) == (
                teacher,
                trained,
            ) and method in pair.methods:
                return ("pairs", index, "methods", pair.methods.index(method))
        for index, cell in enumerate(self.include):
            named = (cell.teacher, self.trained_name(cell.student, cell.data), cell.method)
            if named == (teacher, trained, method):
                return ("include", index, "method")
        return ("pairs",)

    def trained_name(self, student: str, data: str | None) -> str:
        """The name of a student in records and tables. data: its training set; None for that of the matrix."""
        return trained_name(student, self.other_data(data))

    def other_data(self, data: str | None) -> str:
        """A training set where it is another than that of the matrix, else ""."""
        return "" if data in (None, self.training.data) else str(data)

    def data_of(self, cell: Cell) -> str:
        """The training set of a cell."""
        return cell.data or self.training.data

    def axes_of(self, name: str) -> dict[str, str]:
        """Where a name in a pair stands on each axis."""
        return self._settings(name).axes

    def is_tuned(self, name: str) -> bool:
        """Whether a name in a pair stands for a method of which the setting is chosen by trials."""
        return self.tuning is not None and self.axes_of(name).get(SETTING) == TUNED

    @property
    def named(self) -> list[Pair | IncludedCell]:
        """The pairs, and the cells beside them: all that names a teacher and a student."""
        return [*self.pairs, *self.include]

    @property
    def trained_pairs(self) -> list[tuple[str, str]]:
        """Teacher and student of each table, by their names in records."""
        return list(dict.fromkeys((each.teacher, self.trained_name(each.student, each.data)) for each in self.named))

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
        names = dict.fromkeys(member for each in self.named for member in self.members(each.teacher))
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

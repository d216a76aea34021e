"""The training sets, tokenizers and models that a matrix names, as inputs of steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from harness.config.matrix import FileData, FirstLayersModel, Matrix, NewModel, PathModel, StepModel
from harness.costs.model_shapes import published_data, published_model
from harness.planning.step_models import step_model
from harness.runs.identity import FileHashes
from harness.steps import base_model, data, tokenizers
from harness.steps.base import ModelInput, TokenizerInput
from harness.steps.world import World

P = ParamSpec("P")
R = TypeVar("R")


def once(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Make a result once for the same arguments: every cell of a matrix asks for the same models and data."""

    @wraps(method)
    def remembered(self: Sources, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (method.__name__, args, *kwargs.items())
        if key not in self._made:
            self._made[key] = method(self, *args, **kwargs)
        return self._made[key]

    return remembered


class Sources:
    """What a matrix names, each made once.

    Args:
        matrix: the matrix.
        source: its file, for errors.
        estimate_only: published models and data may be missing, as their shapes are known.
    """

    def __init__(self, matrix: Matrix, source: str, *, estimate_only: bool = False) -> None:
        self.matrix = matrix
        self.source = source
        self.estimate_only = estimate_only
        self.hashes = FileHashes()
        self._made: dict[tuple[Any, ...], Any] = {}
        self._making: list[str] = []  # models, each made from the next

    # --- data and tokenizers ---

    @once
    def examples(self, name: str) -> data.Examples:
        """A training set of the matrix."""
        source = self.matrix.data[name]
        if not isinstance(source, FileData):
            return data.WorldExamples(name=name, small_world=World(), set=source.small_world)
        path = Path(source.file)
        with self._at(f"data.{name}.file"):
            if self.estimate_only and not path.is_file() and published_data(source.file) is not None:
                return data.FileExamples(name=name, file=path, sha256=source.file, **(source.columns or {}))
            if not path.is_file():
                raise InputError(f"no file '{path}'; fix: correct the path")
            sha256 = self.hashes.file(path)
        return data.FileExamples(name=name, file=path.resolve(), sha256=sha256, **(source.columns or {}))

    @once
    def prepared(
        self, name: str, student: str, teacher: str | None, max_length: int, responses: Any = None
    ) -> data.PreparedData:
        """A training set in the tokens of a student and, for distillation, its teacher; or a teacher's responses in its place."""
        title = f"data {name} for {student}" + (f" and {teacher}" if teacher else "")
        return data.PreparedData(
            title=title if responses is None else f"{responses.title} for {student}",
            examples=responses or self.examples(name),
            student_tokenizer=self.model(student).tokenizer_input,
            teacher_tokenizer=self.model(teacher).tokenizer_input if teacher else None,
            limit=None if responses else self.matrix.data[name].limit,
            max_length=max_length,
        )

    def tokenizer(self, name: str, source: NewModel) -> TokenizerInput:
        """The tokenizer of a new model, made by a step of its own where the matrix changes it."""
        given = source.tokenizer
        origin: TokenizerInput
        if given.path is None:
            origin = tokenizers.WorldTokenizer(small_world=World(), name=str(given.small_world))
        else:
            with self._at(f"models.{name}.tokenizer.path"):
                folder = Path(given.path)
                files = self.hashes.tokenizer_folder(folder)
                origin = tokenizers.TokenizerFiles(folder=folder.resolve(), files=files)
        changes = tokenizers.TokenizerChanges(template=source.template)
        if not changes:
            return origin
        maker = tokenizers.TokenizerCopy(title=f"tokenizer of {name}", origin=origin, changes=changes)
        return tokenizers.ChangedTokenizer(origin=origin, changes=changes, maker=maker)

    # --- models ---

    @once
    def model(self, name: str) -> ModelInput:
        """A model of the matrix before distillation."""
        source = self.matrix.models[name]
        if name in self._making:
            raise InputError(f"{self.source}: models.{name}: is made from itself; fix: name another model there")
        self._making.append(name)
        try:
            if isinstance(source, PathModel):
                return self._model_in_folder(name, source)
            return (
                step_model(name, source, f"{self.source}: models.{name}", self.matrix.models, self.model)
                if isinstance(source, StepModel)
                else self._new_model(name, source)
            )
        finally:
            self._making.pop()

    def _model_in_folder(self, name: str, source: PathModel) -> ModelInput:
        folder = Path(source.path)
        if self.estimate_only and not folder.is_dir() and published_model(source.path) is not None:
            return base_model.absent_model(name, folder)
        return base_model.model_in_folder(
            name,
            folder,
            self.hashes,
            f"{self.source}: models.{name}.path",
            add_bos_token=source.add_bos_token,
            template=source.template,
        )

    def _new_model(self, name: str, source: NewModel | FirstLayersModel) -> ModelInput:
        about: dict[str, Any] = {"name": name, "title": f"model {name}", "seed": source.seed}
        if isinstance(source, NewModel):
            tokenizer = self.tokenizer(name, source)
            stages = self._stages(name, source, tokenizer)
            return base_model.NewModel(config=source.config, tokenizer=tokenizer, training=stages, **about)
        origin = self.model(source.layers_of)
        available = base_model.layer_count(origin)
        if available is not None and source.layers > available:
            raise InputError(
                f"{self.source}: models.{name}.layers: {source.layers_of} has {available} layers, not {source.layers}; "
                f"fix: ask for {available} or fewer"
            )
        stages = self._stages(name, source, origin.tokenizer_input)
        return base_model.FirstLayers(layers_of=origin, layers=source.layers, training=stages, **about)

    def _stages(
        self, name: str, source: NewModel | FirstLayersModel, tokenizer: TokenizerInput
    ) -> list[base_model.Stage]:
        stages = []
        for stage in source.training:
            options = TrainingOptions.model_validate(stage.options)
            prepared = data.PreparedData(
                title=f"data {stage.data} for {name}",
                examples=self.examples(stage.data),
                student_tokenizer=tokenizer,
                limit=self.matrix.data[stage.data].limit,
                max_length=options.max_length,
            )
            stages.append(base_model.Stage(data=prepared, options=options))
        return stages

    @contextmanager
    def _at(self, where: str) -> Iterator[None]:
        """Put file and key before an error about what they name."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.source}: {where}: {error}") from None

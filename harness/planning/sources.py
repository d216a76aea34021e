"""The training sets, tokenizers and models that a matrix names, as inputs of steps."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args

from pydantic import ValidationError

from dskd import hub
from dskd.data.reading import source_digest
from dskd.data.routes import Route
from dskd.errors import InputError
from dskd.plugins import class_at
from dskd.training.options import TrainingOptions
from harness.config.matrix import Matrix
from harness.config.served import ServedSource, TeachersSource
from harness.config.sources import FileData, FinishedModel, FirstLayersModel, HubDataset, NewModel, StepModel
from harness.costs.model_shapes import published_data, published_model
from harness.planning.served import served_model
from harness.runs.hub_lock import HubLock
from harness.runs.identity import FileHashes
from harness.steps import base_model, data, hub_data, tokenizers
from harness.steps.base import ModelInput, Step, TokenizerInput
from harness.steps.several_teachers import SeveralTeachers
from harness.steps.text_mixture import TextMixture, Written
from harness.steps.world import World
from harness.suggestions import did_you_mean

PROMPTS_ALONE = (
    "has prompts without responses; fix: text: teacher, or text: {teacher: 0.5, student: 0.5}, for what is distilled from it, and other "
    "data for the rest"
)

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


@dataclass(eq=False)
class Sources:
    """What a matrix names, each made once.

    Attributes:
        matrix: the matrix.
        source: its file, for errors.
        estimate_only: published models and data may be missing, as their shapes are known.
        lock: the commits of what comes from the hub.
    """

    matrix: Matrix
    source: str
    estimate_only: bool = False
    hashes: FileHashes = field(default_factory=FileHashes)
    lock: HubLock = field(default_factory=HubLock)
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _making: list[str] = field(default_factory=list)  # models, each made from the next

    def where(self, *keys: Any) -> str:
        """A place in the matrix, with the file that has it."""
        return self.matrix.where(keys, self.source)

    # --- data and tokenizers ---

    @once
    def examples(self, name: str) -> data.Examples:
        """A training set of the matrix."""
        source = self.matrix.data[name]
        if isinstance(source, HubDataset):
            with self._at("data", name, "hub"):
                commit = self.lock.resolve(source.named.name, "dataset")
            return hub_data.hub_examples(name, source.named, commit, source.options)
        if not isinstance(source, FileData):
            return data.WorldExamples(name=name, small_world=World(), set=source.small_world)
        path, said = Path(source.file), data.said(source.options)
        if self.estimate_only and not path.exists() and published_data(source.file) is not None:
            return data.FileExamples(name=name, file=path, sha256=source.file, **said)
        with self._at("data", name, "file"):
            if not path.exists():
                raise InputError(f"no file '{path}'; fix: correct the path")
            digest = source_digest(path, self.hashes.file)
            return data.FileExamples(name=name, file=path.resolve(), sha256=digest, **said)

    @once
    def prepared(
        self,
        name: str,
        student: str,
        teacher: str | None,
        max_length: int,
        responses: Written | TextMixture | None = None,
        tokenizer: TokenizerInput | None = None,
        route: Route | None = None,
    ) -> data.PreparedData:
        """A training set in the tokens of a student and, for distillation, its teacher; or a teacher's responses in its place.

        tokenizer: the student's, where the student is not made yet.
        route: the rows of one of several teachers alone.
        """
        if responses is None and not self.examples(name).has_responses:
            raise InputError(f"{self.where('data', name)}: {PROMPTS_ALONE}")
        what = responses.title if responses else f"data {name}"
        rows = f", rows of {route.teacher}," if route is not None else ""
        return data.PreparedData(
            title=f"{what}{rows} for {student}" + (f" and {teacher}" if teacher else ""),
            examples=responses or self.examples(name),
            student_tokenizer=tokenizer or self.model(student).tokenizer_input,
            teacher_tokenizer=self.model(teacher).tokenizer_input if teacher else None,
            limit=None if responses else self.matrix.data[name].limit,
            max_length=max_length,
            route=route,
        )

    def tokenizer(self, name: str, source: NewModel) -> TokenizerInput:
        """The tokenizer of a new model, made by a step of its own where the matrix changes it."""
        origin: TokenizerInput
        if source.tokenizer.path is None:
            origin = tokenizers.WorldTokenizer(small_world=World(), name=str(source.tokenizer.small_world))
        else:
            place = hub.parse(source.tokenizer.path) or Path(source.tokenizer.path)
            with self._at("models", name, "tokenizer", "path"):
                origin = tokenizers.tokenizer_in_folder(place, self.hashes, self.lock)
        return tokenizers.changed_tokenizer(name, origin, source.template)

    # --- models ---

    @once
    def model(self, name: str) -> ModelInput:
        """A model of the matrix before distillation."""
        source, where = self.matrix.models[name], self.where("models", name)
        if name in self._making:
            raise InputError(f"{where}: is made from itself; fix: name another model there")
        self._making.append(name)
        try:
            if isinstance(source, ServedSource):
                return served_model(name, source, self.hashes, self.lock, lambda key: f"{where}.{key}")
            if isinstance(source, StepModel):
                return step_model(name, source, where, self.matrix.models, self.model)
            if isinstance(source, TeachersSource):
                members = [self.model(member) for member in source.names]
                weights = [*source.weights.values()] or None
                return SeveralTeachers(name=name, members=members, route=source.route, weights=weights)
            if not isinstance(source, FinishedModel):
                return self._new_model(name, source, where)
            if self.estimate_only and is_absent(source, self.lock, where):
                return base_model.absent_model(name, source.published)
            return base_model.model_in_folder(
                name,
                source.place,
                self.hashes,
                f"{where}.{source.key}",
                source.template,
                add_bos_token=source.add_bos_token,
                lock=self.lock,
            )
        finally:
            self._making.pop()

    def _new_model(self, name: str, source: NewModel | FirstLayersModel, where: str) -> ModelInput:
        about: dict[str, Any] = {"name": name, "title": f"model {name}", "seed": source.seed}

        def stages(tokenizer: TokenizerInput) -> Iterator[base_model.Stage]:
            for stage in source.training:
                options = TrainingOptions.model_validate(stage.options)
                prepared = self.prepared(stage.data, name, None, options.max_length, tokenizer=tokenizer)
                yield base_model.Stage(data=prepared, options=options)

        if isinstance(source, NewModel):
            own = self.tokenizer(name, source)
            return base_model.NewModel(config=source.config, tokenizer=own, training=[*stages(own)], **about)
        origin = self.model(source.layers_of)
        count = base_model.layer_count(origin)
        if count is not None and source.layers > count:
            raise InputError(
                f"{where}.layers: {source.layers_of} has {count} layers, not {source.layers}; fix: ask for {count} or fewer"
            )
        training = [*stages(origin.tokenizer_input)]
        return base_model.FirstLayers(layers_of=origin, layers=source.layers, training=training, **about)

    @contextmanager
    def _at(self, *keys: str) -> Iterator[None]:
        """Put file and key before an error about what they name."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.where(*keys)}: {error}") from None


def is_absent(source: FinishedModel, lock: HubLock, where: str) -> bool:
    """Whether a model is not on this machine and cannot be had, but is published, so that its shape is known.

    Args:
        source: the model.
        lock: the commits of the run.
        where: what errors begin with.

    Returns:
        False for one that is here, or on the hub where a network leads to it.

    Raises:
        InputError: for one that is not here and not published.
    """
    known = published_model(str(source.published)) is not None
    if isinstance(source.place, Path):
        if not source.place.is_dir() and not known:
            raise InputError(f"{where}.{source.key}: no folder '{source.place}'; fix: correct the path")
        return not source.place.is_dir()
    try:
        hub.settings(source.place.repo, lock.resolve(source.place))
    except hub.HubUnreachable as error:
        if not known:
            raise InputError(f"{where}.{source.key}: {error}") from None
        return True
    except InputError as error:
        raise InputError(f"{where}.{source.key}: {error}") from None
    return False


def step_model(
    name: str, source: StepModel, where: str, known: Collection[str], model: Callable[[str], ModelInput]
) -> ModelInput:
    """The model that a class of the user's makes: `models.NAME: {step: path/to/file.py:Class, …}`.

    Its fields that take models get those of the matrix: `model` gives one of the `known` names. InputError, which begins with
    `where` and the key, for what does not fit.
    """
    try:
        cls = class_at(source.step)
    except InputError as error:
        raise InputError(f"{where}.step: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, Step) and issubclass(cls, ModelInput)):
        raise InputError(f"{where}.step: '{source.step}' makes no model; fix: name a class of both Step and ModelInput")

    def models(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [models(key, each) for each in value]
        if value is not None and value not in known:
            raise InputError(f"{where}.{key}: no model '{value}'{did_you_mean(str(value), known)}")
        return None if value is None else model(value)

    own = cls.model_fields.keys() - {"name", "title"}
    given: dict[str, Any] = {"name": name, "title": f"model {name}"}
    for key, value in source.options.items():
        if key not in own:
            raise InputError(f"{where}.{key}: unknown key{did_you_mean(key, own)}")
        given[key] = models(key, value) if _takes_model(cls.model_fields[key].annotation) else value
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, (where, *first["loc"])))
        raise InputError(f"{place}: {first['msg'].removeprefix('Value error, ')}; fix: correct it") from None


def _takes_model(annotation: Any) -> bool:
    inner = get_args(annotation)
    return any(map(_takes_model, inner)) or (isinstance(annotation, type) and issubclass(annotation, ModelInput))

"""From a matrix to steps: the only place that knows both."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from dskd import methods
from dskd.compatibility import Problem, check
from dskd.errors import InputError
from dskd.training.options import TrainingOptions
from harness import tasks as known_tasks
from harness.config.matrix import Cell, FileData, Matrix, NewModel, PathModel, TokenizerSource
from harness.costs.model_shapes import published_data, published_model
from harness.protocols import Protocol
from harness.runs.identity import FileHashes
from harness.runs.records import RecordCell
from harness.runs.store import train_folder
from harness.smallworld.world import SMALL_WORLD_VERSION
from harness.steps import base_model, data, tokenizers, training
from harness.steps.base import ModelInput, Step, TokenizerInput
from harness.steps.evaluation import Evaluate, EvaluatedTask
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.world import World

P = ParamSpec("P")
R = TypeVar("R")


def once(method: Callable[Concatenate[Expansion, P], R]) -> Callable[Concatenate[Expansion, P], R]:
    """Make a result once for the same arguments: every cell of a matrix asks for the same models and data."""

    @wraps(method)
    def remembered(self: Expansion, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (method.__name__, args, *kwargs.items())
        if key not in self._made:
            self._made[key] = method(self, *args, **kwargs)
        return self._made[key]

    return remembered


class Expansion:
    """The steps of a matrix, each made once.

    Args:
        matrix: the matrix.
        source: its file, for errors.
        engine: the engine that is asked for, `auto` included: which one answered is in the record.
        limit: evaluate on so many items of each task at most.
        allow_code_execution: whether tasks may run generated code.
        estimate_only: published models and data may be missing, as their shapes are known.
        hashes: of files.
    """

    def __init__(
        self,
        matrix: Matrix,
        source: str,
        *,
        engine: str = "auto",
        limit: int | None = None,
        allow_code_execution: bool = False,
        estimate_only: bool = False,
        hashes: FileHashes | None = None,
    ) -> None:
        self.matrix = matrix
        self.source = source
        self.engine = engine
        self.limit = limit
        self.allow_code_execution = allow_code_execution
        self.estimate_only = estimate_only
        self.hashes = hashes or FileHashes()
        self.launch = training.find_launch(**matrix.launch.model_dump())
        self._made: dict[tuple[Any, ...], Any] = {}

    def expand(self, cells: Sequence[Cell], tasks: Sequence[str]) -> list[Step]:
        """The training and the evaluation of each cell. InputError for what the matrix names and is not there."""
        steps: list[Step] = []
        for cell in cells:
            model = self.model(cell.teacher) if cell.student is None else self.train(cell)
            if isinstance(model, training.Train):
                self._refuse(model)
                steps.append(model)
            if tasks:
                steps.append(self.evaluate(cell, model, tasks))
        return steps

    def _refuse(self, step: training.Train) -> None:
        """InputError for the first problem of a training."""
        for problem in self.problems_of(step.cell.method, step.teacher is not None):
            raise InputError(problem.text(f"{self.source}: {self.place(step.cell, problem.key)}"))

    @once
    def problems_of(self, name: str, has_teacher: bool) -> Sequence[Problem]:
        """What is wrong with the settings of a name in a pair."""
        method, options = self.method(name)
        settings = self.matrix.outputs_of(name)
        return check(
            method,
            teacher_outputs=settings.kind,
            top_k_temperature=settings.temperature,
            rollouts=options.rollouts,
            packing=options.packing,
            has_teacher=has_teacher,
        )

    def place(self, cell: Cell | RecordCell, key: str) -> str:
        """Where the matrix says what a problem of a training is about."""
        head, *rest = key.split(".")
        if head == "teacher_outputs":
            return ".".join([self.matrix.place(cell.method, "teacher_outputs"), *rest])
        if head == "training":
            return ".".join([self.matrix.place(cell.method, "training", rest[0]), *rest[1:]])
        pairs = [(pair.teacher, pair.student) for pair in self.matrix.pairs]
        pair = f"pairs.{pairs.index((cell.teacher, str(cell.student)))}"
        return f"{pair}.methods" if head == "method" else pair

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
    def data(
        self, name: str, student: str, teacher: str | None, max_length: int, responses: Any = None
    ) -> data.PreparedData:
        """A training set in the tokens of a student and, for distillation, its teacher; or a teacher's responses in its place."""
        title = f"data {name} for {student}" + (f" and {teacher}" if teacher else "")
        if responses is not None:
            title = f"{responses.title} for {student}"
        learner = self.model(student)
        return data.PreparedData(
            title=title,
            examples=responses or self.examples(name),
            student_tokenizer=learner.tokenizer_input,
            teacher_tokenizer=self.model(teacher).tokenizer_input if teacher else None,
            limit=None if responses is not None else self.matrix.data[name].limit,
            max_length=max_length,
            instructions=learner.prompt_template is not None,
        )

    def tokenizer(self, name: str, source: NewModel) -> TokenizerInput:
        """The tokenizer of a new model, made by a step of its own where the matrix changes it."""
        origin = self._tokenizer_source(name, source.tokenizer)
        changes = tokenizers.TokenizerChanges(template=source.template)
        if not changes:
            return origin
        maker = tokenizers.TokenizerCopy(title=f"tokenizer of {name}", origin=origin, changes=changes)
        return tokenizers.ChangedTokenizer(origin=origin, changes=changes, maker=maker)

    def _tokenizer_source(self, name: str, source: TokenizerSource) -> TokenizerInput:
        if source.path is not None:
            return self._tokenizer_folder(Path(source.path), f"models.{name}.tokenizer.path")
        return tokenizers.WorldTokenizer(small_world=World(), name=str(source.small_world))

    def _tokenizer_folder(self, folder: Path, where: str) -> tokenizers.TokenizerFiles:
        with self._at(where):
            return tokenizers.TokenizerFiles(folder=folder.resolve(), files=self.hashes.tokenizer_folder(folder))

    # --- models ---

    @once
    def model(self, name: str) -> ModelInput:
        """A model of the matrix before distillation."""
        source = self.matrix.models[name]
        title = f"model {name}"
        if isinstance(source, PathModel):
            folder = Path(source.path)
            if self.estimate_only and not folder.is_dir() and published_model(source.path) is not None:
                return base_model.absent_model(name, folder)
            where = f"{self.source}: models.{name}.path"
            return base_model.model_in_folder(
                name, folder, self.hashes, where, add_bos_token=source.add_bos_token, template=source.template
            )
        if isinstance(source, NewModel):
            made: dict[str, Any] = {"config": source.config, "tokenizer": self.tokenizer(name, source)}
            return base_model.NewModel(
                name=name, title=title, seed=source.seed, training=self._stages(name, made), **made
            )
        origin = self.model(source.layers_of)
        available = base_model.layer_count(origin)
        if available is not None and source.layers > available:
            raise InputError(
                f"{self.source}: models.{name}.layers: {source.layers_of} has {available} layers, not {source.layers}; "
                f"fix: ask for {available} or fewer"
            )
        made = {"layers_of": origin, "layers": source.layers}
        return base_model.FirstLayers(
            name=name, title=title, seed=source.seed, training=self._stages(name, made), **made
        )

    def _stages(self, name: str, made: dict[str, Any]) -> list[base_model.Stage]:
        source = self.matrix.models[name]
        if isinstance(source, PathModel) or not source.training:
            return []
        start = base_model.NewModel if isinstance(source, NewModel) else base_model.FirstLayers
        untrained = start(name=name, seed=source.seed, training=[], **made)
        stages = []
        for stage in source.training:
            options = TrainingOptions.model_validate(stage.options)
            prepared = data.PreparedData(
                title=f"data {stage.data} for {name}",
                examples=self.examples(stage.data),
                student_tokenizer=untrained.tokenizer_input,
                teacher_tokenizer=None,
                limit=self.matrix.data[stage.data].limit,
                max_length=options.max_length,
                instructions=untrained.prompt_template is not None,
            )
            stages.append(base_model.Stage(data=prepared, options=options))
        return stages

    # --- cells ---

    @once
    def method(self, name: str) -> tuple[methods.Method, TrainingOptions]:
        """The method that a name in a pair stands for, with its options, and how it is trained."""
        method = methods.get(self.matrix.method_of(name))(self.matrix.method_options(name))
        return method, TrainingOptions.model_validate(self.matrix.training_of(name).options)

    @once
    def responses(self, name: str, teacher: str, method: str) -> TeacherResponses:
        """The teacher's responses to a training set; how it answers is said as for an evaluation."""
        options, settings = self.method(method)[0].options, self.matrix.evaluation
        return TeacherResponses(
            title=f"responses of {teacher} to {name}",
            examples=self.examples(name),
            limit=self.matrix.data[name].limit,
            teacher=self.model(teacher),
            max_new_tokens=options.max_new_tokens,
            temperature=options.answer_temperature,
            engine=self.engine,
            dtype=settings.dtype,
            seed=settings.seed,
            max_batch_size=settings.max_batch_size,
        )

    @once
    def teacher_cache(self, teacher: str, name: str, method: str) -> TeacherCache:
        """What a teacher gives for a training set, for all methods of a matrix with the same settings."""
        options = self.method(method)[1]
        return TeacherCache(
            title=f"teacher cache of {teacher} on {name}",
            teacher=self.model(teacher),
            data=self.data(name, teacher, None, options.max_length),
            options=self.matrix.outputs_of(method).options,
            dtype=options.dtype,
        )

    def train(self, cell: Cell) -> training.Train:
        """The training of a student."""
        assert cell.student is not None
        method, options = self.method(cell.method)
        name = self.matrix.training.data
        if method.requires.response_source == "teacher":
            responses = self.responses(name, cell.teacher, cell.method)
            prepared = self.data(name, cell.student, None, options.max_length, responses)
        else:
            # One data set for all methods of a pair, SFT too: none may see examples that another does not.
            prepared = self.data(name, cell.student, cell.teacher, options.max_length)
        settings = self.matrix.outputs_of(cell.method) if method.requires.teacher else None
        cached = settings is not None and settings.kind != "live"
        return training.Train(
            title=f"train {cell.folder}",
            name=cell.student,
            cell=RecordCell(teacher=cell.teacher, student=cell.student, method=cell.method, seed=cell.seed),
            output_folder=train_folder(cell.folder),
            data=prepared,
            student=self.model(cell.student),
            teacher=self.model(cell.teacher) if method.requires.teacher else None,
            cache=self.teacher_cache(cell.teacher, name, cell.method) if cached else None,
            method=self.matrix.method_of(cell.method),
            method_options=method.options.model_dump(mode="json"),
            method_code=methods.own_code(self.matrix.method_of(cell.method)),
            teacher_outputs=settings.options if settings is not None else None,
            training=options,
            seed=cell.seed or 0,
            processes=self.launch[0],
            accelerate_config=self.launch[1],
        )

    @once
    def evaluated(self, entry: str) -> EvaluatedTask:
        """An entry of the matrix's `tasks`."""
        name, settings = self.matrix.task_of(entry), self.matrix.tasks[entry]
        limits = [limit for limit in (settings.limit, self.limit) if limit is not None]
        limit = min(limits) if limits else None
        return evaluated_task(entry, name, settings.protocol, limit=limit, max_new_tokens=settings.max_new_tokens)

    def evaluate(self, cell: Cell, model: ModelInput, tasks: Sequence[str]) -> Evaluate:
        """The evaluation of a student or a teacher."""
        settings = self.matrix.evaluation
        return Evaluate(
            title=f"evaluate {cell.folder}",
            cell=RecordCell(teacher=cell.teacher, student=cell.student, method=cell.method, seed=cell.seed),
            cell_folder=cell.folder,
            model=model,
            tasks=[self.evaluated(entry) for entry in tasks],
            engine=self.engine,
            dtype=settings.dtype,
            seed=settings.seed,
            max_batch_size=settings.max_batch_size,
            allow_code_execution=self.allow_code_execution,
        )

    @contextmanager
    def _at(self, where: str) -> Iterator[None]:
        """Put file and key before an error about what they name."""
        try:
            yield
        except InputError as error:
            if str(error).startswith(f"{self.source}: "):
                raise
            raise InputError(f"{self.source}: {where}: {error}") from None


def evaluated_task(
    entry: str, name: str, protocol: Protocol, *, limit: int | None, max_new_tokens: int | None
) -> EvaluatedTask:
    """A task of an evaluation. InputError for one that is not known."""
    task = known_tasks.load(name)
    protocol = protocol.with_length(max_new_tokens, task.max_new_tokens)
    extra = dict(task.identity())
    if name.startswith("small_"):
        # The test sets are generated where they are needed, so an evaluation reads the world's version and not its files.
        extra["world"] = {"version": SMALL_WORLD_VERSION}
    return EvaluatedTask(
        entry=entry,
        task=name,
        version=task.version,
        limit=limit,
        max_new_tokens=protocol.max_new_tokens or task.max_new_tokens,
        protocol=protocol,
        extra=extra,
    )

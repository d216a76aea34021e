"""From the cells of a matrix to steps."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dskd import hub, methods
from dskd.compatibility import check_text
from dskd.data.routes import Route
from dskd.errors import InputError
from dskd.text import TeacherText
from dskd.training.options import TrainingOptions
from harness.config.matrix import Cell
from harness.config.selection import cells_with_tasks
from harness.config.served import ServedSource, TeachersSource
from harness.config.settings import TeacherCaches, TeacherOutputs
from harness.planning.caches import settings_of_cache
from harness.planning.distances import distance_steps
from harness.planning.evaluated import evaluated_task
from harness.planning.served import endpoint_responses, gives_text_alone
from harness.planning.sources import once
from harness.planning.tuned import TunedSources, tuned_training
from harness.planning.written import lacking_responses, responses_step, written_by
from harness.runs.records import RecordCell
from harness.runs.store import train_folder
from harness.steps import training
from harness.steps.base import ModelInput, Step
from harness.steps.base_model import model_in_folder
from harness.steps.data import PreparedData
from harness.steps.evaluation import Evaluate, EvaluatedTask
from harness.steps.kept_responses import Responses
from harness.steps.served_model import ServedModel
from harness.steps.several_teachers import SeveralTeachers, TaughtBySeveral, TaughtData
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_reference import TeacherReference
from harness.steps.text_mixture import TextMixture, Written

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Expansion(TunedSources):
    """The steps of a matrix's cells, each made once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.processes, self.accelerate_config = training.find_launch(**self.matrix.launch.model_dump())

    def expand(self, cells: Sequence[Cell], tasks: Sequence[str]) -> list[Step]:
        """The training and the evaluation of each cell. InputError for what the matrix names and is not there."""
        steps: list[Step] = []
        checked: set[str] = set()
        trained: dict[str, Cell] = {}
        wanted, of_cells = set(tasks), cells_with_tasks(self.matrix)
        for cell in cells:
            model = self.model(cell.teacher) if cell.student is None else self.train(cell)
            if isinstance(model, training.Train):
                steps.append(model)
                same = trained.setdefault(model.fingerprint.hash, cell)
                if same != cell:
                    log.warning("%s: is the same training as %s; leave one of the two out", cell.folder, same.folder)
                # All trainings by a method have the same settings.
                for problem in () if cell.method in checked else model.problems():
                    raise InputError(problem.text(self.where_of(cell, problem.key)))
                checked.add(cell.method)
            if own := [task for task in of_cells.get(cell, ()) if task in wanted]:
                evaluation = self.evaluate(cell, model, own)
                steps.append(evaluation)
                if self.matrix.evaluation.distances:
                    steps += distance_steps(self, cell, evaluation)
        return steps

    def where_of(self, cell: Cell | RecordCell, key: str) -> str:
        """The file and the key that say what a problem of a training is about."""
        head, *rest = key.split(".")
        if head in {"teacher_outputs", "training", "text"}:
            own = 1 if head == "training" else 0
            return self.where(*self.matrix.location(cell.method, head, *rest[:own]), *rest[own:])
        trained = cell.trained if isinstance(cell, Cell) else cell.student
        place = self.matrix.pair_place(cell.teacher, str(trained), cell.method)
        if head != "method":
            return self.where(*place[:2])
        return self.where(*(place[:3] if place[0] == "pairs" else place))

    @once
    def method(self, name: str) -> tuple[methods.Method, TrainingOptions]:
        """The method that a name in a pair stands for, with its options, and how it is trained."""
        method = methods.get(self.matrix.method_of(name))(self.matrix.method_options(name))
        text = self.matrix.text_of(name)
        for problem in check_text(method, text) if text is not None else ():
            raise InputError(problem.text(self.where(*self.matrix.location(name, problem.key))))
        return method, TrainingOptions.model_validate(self.matrix.training_of(name).options)

    @once
    def responses(self, name: str, teacher: str, asked: TeacherText) -> Responses:
        """The teacher's responses to a training set; how it answers is said as for an evaluation, or by its address."""
        limit, source = self.matrix.data[name].limit, self.matrix.models[teacher]
        if isinstance(source, ServedSource):
            seed, where = self.matrix.evaluation.seed, self.where("models", teacher)
            return endpoint_responses(self.examples(name), limit, self.model(teacher), source, asked, seed, where)
        return responses_step(self.examples(name), limit, self.model(teacher), asked, self.answering)

    @once
    def written(self, name: str, teacher: str, method: str) -> Written | TextMixture | None:
        """What a student is trained on where the teacher writes some of it; None where it does not."""
        text = self.matrix.text_of(method)
        if text is None or text.teacher is None:
            return None
        responses = self.responses(name, teacher, text.teacher)
        try:
            return written_by(responses, text, allow_code_execution=self.allow_code_execution)
        except InputError as error:
            place = self.matrix.location(method, "text")
            raise InputError(f"{self.where(*place)}.teacher.{error}") from None

    @once
    def teacher_cache(self, teacher: str, name: str, method: str, route: Route | None = None) -> TeacherCache:
        """What a teacher gives for a training set or its rows of it, for all methods of a matrix with the same settings."""
        options, outputs = self.method(method)[1], self.matrix.outputs_of(method).options
        written = self.written(name, teacher, method)
        prepared = self.prepared(name, teacher, None, options.max_length, written, route=route)
        return cache_step(self.model(teacher), prepared, outputs, options, self.matrix.teacher_cache)

    @once
    def reference(self, teacher: str) -> TeacherReference | None:
        """What the local copy of a served teacher answers to the probe's texts; None for a teacher that is not served."""
        return reference_step(self.model(teacher))

    def where_of_reference(self, cell: Cell) -> str:
        """The key that names the reference model of a method."""
        return self.where("methods", cell.method, "reference")

    def frozen(self, cell: Cell) -> ModelInput | None:
        """The model that a method's option `reference` names, of the matrix or a folder; None for the student as it starts, or none."""
        method = self.method(cell.method)[0]
        named = getattr(method.options, "reference", None) if method.requires.reference else None
        if named is None:
            return None
        where = self.where_of_reference(cell)
        if named not in self.matrix.models:
            return model_in_folder("reference", hub.parse(named) or Path(named), self.hashes, where, lock=self.lock)
        model = self.model(named)
        if isinstance(model, (ServedModel, SeveralTeachers)):
            raise InputError(
                f"{where}: {named} is no model that runs here; fix: name one in a folder or made by the matrix"
            )
        return model

    def taught_by_several(self, cell: Cell, source: TeachersSource) -> TaughtBySeveral:
        """What each of several teachers teaches in a cell: its rows or all, in its tokens, with a cache of its own or asked live."""
        assert cell.student is not None
        method, options = self.method(cell.method)
        text = self.matrix.text_of(cell.method)
        if text is not None and text.teacher is not None:
            where = self.where_of(cell, "method")
            raise InputError(
                f"{where}: {method.name} learns from the responses of one teacher; fix: name one of {', '.join(source.names)}"
            )
        name, outputs = self.matrix.data_of(cell), self.matrix.outputs_of(cell.method)
        parts = []
        for teacher in source.names:
            route = source.route and Route(column=source.route, teacher=teacher, teachers=tuple(source.names))
            cached = method.requires.teacher and not outputs.is_live
            parts.append(
                TaughtData(
                    name=teacher,
                    teacher=self.model(teacher) if method.requires.teacher else None,
                    data=self.prepared(name, cell.student, teacher, options.max_length, route=route or None),
                    cache=self.teacher_cache(teacher, name, cell.method, route or None) if cached else None,
                    reference=self.reference(teacher) if method.requires.teacher and not cached else None,
                    outputs=outputs.options,
                    weight=source.weights.get(teacher),
                )
            )
        return TaughtBySeveral(parts=parts)

    def train(self, cell: Cell) -> training.Train:
        """The training of a student."""
        assert cell.student is not None
        method, options = self.method(cell.method)
        name, source = self.matrix.data_of(cell), self.matrix.models[cell.teacher]
        settings = self.matrix.outputs_of(cell.method) if method.requires.teacher else None
        if problem := lacking_responses(self.examples(name), self.matrix.text_of(cell.method), cell.method):
            raise InputError(problem.text(self.where_of(cell, problem.key)))
        self._check_served(cell, settings)
        prepared: PreparedData | TaughtBySeveral
        if isinstance(source, TeachersSource):
            prepared = self.taught_by_several(cell, source)
        elif method.requires.response_source == "teacher":
            written = self.written(name, cell.teacher, cell.method)
            prepared = self.prepared(name, cell.student, None, options.max_length, written)
        else:
            # One data set for all methods of a pair, SFT too: none may see examples that another does not.
            text_alone = gives_text_alone(self.model(cell.teacher)) and not method.requires.teacher
            read_by = None if text_alone else cell.teacher
            written = self.written(name, cell.teacher, cell.method)
            prepared = self.prepared(name, cell.student, read_by, options.max_length, written)
        cached = settings is not None and not settings.is_live and not isinstance(source, TeachersSource)
        trained = training.Train(
            title=f"train {cell.folder}",
            name=cell.student,
            cell=RecordCell(**cell.recorded),
            output_folder=train_folder(cell.folder),
            data=prepared,
            student=self.model(cell.student),
            teacher=self.model(cell.teacher) if method.requires.teacher else None,
            cache=self.teacher_cache(cell.teacher, name, cell.method) if cached else None,
            reference=self.reference(cell.teacher) if method.requires.teacher and not cached else None,
            frozen=self.frozen(cell),
            method=self.matrix.method_of(cell.method),
            method_options=method.options.model_dump(mode="json"),
            method_code=methods.own_code(self.matrix.method_of(cell.method)),
            teacher_outputs=settings.options if settings is not None else None,
            training=options,
            seed=cell.seed or 0,
            processes=self.processes,
            accelerate_config=self.accelerate_config,
        )
        if not self.matrix.is_tuned(cell.method):
            return trained
        for problem in trained.problems():  # of the matrix, and not of what a trial changes
            raise InputError(problem.text(self.where_of(cell, problem.key)))
        return tuned_training(self, cell, trained)

    def _check_served(self, cell: Cell, outputs: TeacherOutputs | None) -> None:
        """InputError where a teacher behind an address does not give what the method learns from."""
        served = [
            model for model in map(self.model, self.matrix.members(cell.teacher)) if isinstance(model, ServedModel)
        ]
        if outputs is None or not served:
            return
        for teacher in served:
            try:
                (teacher.served if outputs.is_live else teacher.served_for_cache)(outputs.options)
            except InputError as error:
                raise InputError(f"{self.source}: {error}") from None

    @once
    def evaluated(self, entry: str) -> EvaluatedTask:
        """An entry of the matrix's `tasks`."""
        name, settings = self.matrix.task_of(entry), self.matrix.tasks[entry]
        limit = min((limit for limit in (settings.limit, self.limit) if limit is not None), default=None)
        protocol = settings.with_limits_of_reasoning()
        return evaluated_task(entry, name, protocol, limit=limit, max_new_tokens=settings.max_new_tokens)

    def evaluate(self, cell: Cell, model: ModelInput, tasks: Sequence[str]) -> Evaluate:
        """The evaluation of a student or a teacher."""
        return Evaluate(
            title=f"evaluate {cell.folder}",
            cell=RecordCell(**cell.recorded),
            cell_folder=cell.folder,
            model=model,
            tasks=[self.evaluated(entry) for entry in tasks],
            allow_code_execution=self.allow_code_execution,
            **self.answering,
        )


def reference_step(teacher: ModelInput) -> TeacherReference | None:
    """What the local copy of a served teacher answers to the probe's texts; None where there is nothing of it here."""
    if not isinstance(teacher, ServedModel) or not teacher.local_copy or teacher.head is None or teacher.head.from_hub:
        return None
    return TeacherReference(title=f"reference of {teacher.name}", teacher=teacher)


def cache_step(
    teacher: ModelInput,
    data: PreparedData,
    outputs: dict[str, Any],
    options: TrainingOptions,
    caches: TeacherCaches,
) -> TeacherCache:
    """What a teacher gives for its own tokens of a training set. outputs, caches: what is kept, and what computes it."""
    rows = f", rows of {data.route.teacher}" if data.route is not None else ""
    title = f"teacher cache of {teacher.name} on {data.set_name}{rows}"
    return TeacherCache(**settings_of_cache(teacher, outputs, options.dtype, caches), title=title, data=data)

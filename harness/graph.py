"""From a matrix to a graph of jobs: what each makes, from what, and with which identity. Nothing here looks at what is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dskd.errors import InputError
from harness.artifacts import RUNNERS, Artifact, Artifacts, Node, identity_options, training_options
from harness.identity import CODE_VERSIONS, FileHashes, Identity
from harness.jobs.spec import JobSpec, OutputSpec
from harness.matrix import Cell, Matrix
from harness.records import RecordCell
from harness.store import eval_folder, train_folder
from harness.tokenizer_files import same_vocabulary

Graph = dict[str, Node]


class GraphBuilder:
    """Builds the graph for some cells and tasks of a matrix.

    `source` is the matrix file, for errors; `root` the run's folder. `engine` is the one asked for, `auto` included: which one
    answered stands in the record.
    """

    def __init__(
        self,
        matrix: Matrix,
        source: str,
        root: Path,
        *,
        engine: str,
        limit: int | None = None,
        allow_code_execution: bool = False,
        hashes: FileHashes | None = None,
    ) -> None:
        self.matrix = matrix
        self.artifacts = Artifacts(matrix, source, root, hashes or FileHashes())
        self.engine = engine
        self.limit = limit
        self.allow_code_execution = allow_code_execution

    def build(self, cells: Sequence[Cell], tasks: Sequence[str]) -> Graph:
        """The jobs that these cells need, by id, each after what it needs, with the evaluations on these tasks.

        InputError for what the matrix names and is not there, and for a method whose pair does not suit it.
        """
        pairs: dict[tuple[str, str], list[str]] = {}
        for cell in cells:
            if cell.student is not None:
                pairs.setdefault((cell.teacher, cell.student), []).append(cell.method)
        for (teacher, student), methods in pairs.items():
            self._check_vocabularies(teacher, student, methods)
        for cell in cells:
            model = self.artifacts.model(cell.teacher) if cell.student is None else self._student(cell)
            if tasks:
                self._evaluation(cell, model, tasks)
        return self.artifacts.nodes

    def _check_vocabularies(self, teacher: str, student: str, methods: Iterable[str]) -> None:
        import dskd.methods

        strict = [method for method in methods if dskd.methods.get(method).vocabulary == "same"]
        if not strict:
            return
        first, second = self.artifacts.vocabulary(teacher), self.artifacts.vocabulary(student)
        if first.parts == second.parts:
            return
        # Folders that a job has yet to make differ as their descriptions do.
        if not (first.needs or second.needs) and same_vocabulary(first.path, second.path) is not False:
            return
        index = next(i for i, p in enumerate(self.matrix.pairs) if (p.teacher, p.student) == (teacher, student))
        any_two = sorted(name for name, method in dskd.methods.METHODS.items() if method.vocabulary == "any")
        raise InputError(
            f"{self.artifacts.source}: pairs.{index}.methods: {strict[0]} needs one vocabulary, but teacher '{teacher}' "
            f"and student '{student}' have different ones; use a method for any two: {', '.join(any_two)}"
        )

    def _student(self, cell: Cell) -> Artifact:
        import dskd.methods

        assert cell.student is not None
        method = dskd.methods.get(cell.method)
        options = method.Options.model_validate(self.matrix.methods.get(cell.method, {})).model_dump()
        training = training_options(self.matrix.training)
        # One data set for all methods of a pair, SFT too: none may see examples that another does not.
        data = self.artifacts.data(self.matrix.training.data, cell.student, cell.teacher, training["max_length"])
        student = self.artifacts.model(cell.student)
        teacher = self.artifacts.model(cell.teacher) if method.needs_teacher else None
        parts = {
            "code": CODE_VERSIONS["train"],
            "method": cell.method,
            "options": options,
            "training": identity_options(training),
            "seed": cell.seed,
            "student": student.parts,
            "teacher": teacher.parts if teacher else None,
            "data": data.parts,
        }
        folder = train_folder(cell.folder)
        record_cell = RecordCell(teacher=cell.teacher, student=cell.student, method=cell.method, seed=cell.seed)
        spec = JobSpec(
            id=f"train:{cell.folder}",
            kind="train",
            title=f"train {cell.folder}",
            runner=RUNNERS["train"],
            root=str(self.artifacts.root),
            folder=folder,
            outputs=[OutputSpec(folder=folder, identity=Identity.of(parts), cell=record_cell, product="model")],
            arguments={
                "data": str(data.path),
                "student": str(student.path),
                "teacher": str(teacher.path) if teacher else None,
                "method": cell.method,
                "method_options": options,
                "training": training,
                "seed": cell.seed,
            },
        )
        needs = dict.fromkeys([*data.needs, *student.needs, *(teacher.needs if teacher else ())])
        return Artifact(self.artifacts.root / folder / "model", parts, self.artifacts.add(Node(spec, tuple(needs))))

    def _evaluation(self, cell: Cell, model: Artifact, tasks: Sequence[str]) -> None:
        from harness import tasks as known_tasks

        outputs, arguments = [], {}
        settings = self.matrix.evaluation
        for name in tasks:
            task = known_tasks.load(name)
            own = self.matrix.tasks[name]
            limits = [limit for limit in (own.limit, self.limit) if limit is not None]
            options = {
                "limit": min(limits) if limits else None,
                "max_new_tokens": own.max_new_tokens or task.max_new_tokens,
            }
            parts = {
                "code": CODE_VERSIONS["evaluate"],
                "task": name,
                "version": task.version,
                "seed": settings.seed,
                "dtype": settings.dtype,
                "engine": self.engine,
                "model": model.parts,
                **options,
            }
            if name.startswith("small_"):
                parts["world"] = self._world_parts()
            record_cell = RecordCell(
                teacher=cell.teacher,
                student=cell.student,
                method=cell.method,
                seed=cell.seed,
                task=name,
                task_version=task.version,
            )
            outputs.append(
                OutputSpec(
                    folder=eval_folder(cell.folder, name, task.version), identity=Identity.of(parts), cell=record_cell
                )
            )
            arguments[name] = options
        spec = JobSpec(
            id=f"evaluate:{cell.folder}",
            kind="evaluate",
            title=f"evaluate {cell.folder}",
            runner=RUNNERS["evaluate"],
            root=str(self.artifacts.root),
            folder=f"cells/{cell.folder}/eval",
            outputs=outputs,
            arguments={
                "model": str(model.path),
                "tasks": arguments,
                "engine": self.engine,
                "dtype": settings.dtype,
                "max_batch_size": settings.max_batch_size,
                "seed": settings.seed,
                "allow_code_execution": self.allow_code_execution,
            },
        )
        self.artifacts.add(Node(spec, model.needs))

    def _world_parts(self) -> dict[str, Any]:
        from harness.smallworld.world import SMALL_WORLD_VERSION

        # The test sets are generated where they are needed, so an evaluation reads the world's version and not its files.
        return {"version": SMALL_WORLD_VERSION}

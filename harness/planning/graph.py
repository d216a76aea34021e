"""From a matrix to a graph of jobs: what each makes, from what, and with which identity. Nothing here looks at what is done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dskd.errors import InputError
from harness.config.matrix import Cell, Matrix, SignalSettings
from harness.planning.artifacts import RUNNERS, Artifact, Artifacts, Node, identity_options, training_options
from harness.planning.check_prompts import check_prompts
from harness.planning.check_vocabularies import check_pair
from harness.planning.lineage import training_data
from harness.runs.identity import CODE_VERSIONS, FileHashes, Identity
from harness.runs.job_spec import JobSpec, OutputSpec
from harness.runs.records import RecordCell
from harness.runs.store import eval_folder, train_folder

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
        check_prompts(self.artifacts, cells, tasks)
        for cell in cells:
            model = self.artifacts.model(cell.teacher) if cell.student is None else self._student(cell)
            if tasks:
                self._evaluation(cell, model, tasks)
        return self.artifacts.nodes

    def _check_vocabularies(self, teacher: str, student: str, methods: Iterable[str]) -> None:
        from dskd.methods import METHODS, get

        index = next(i for i, p in enumerate(self.matrix.pairs) if (p.teacher, p.student) == (teacher, student))
        check_pair(
            self.artifacts,
            teacher,
            student,
            strict=[
                name
                for name in dict.fromkeys(methods)
                if get(self.matrix.method_of(name)).requires.vocabulary == "same"
            ],
            any_two=sorted(name for name, method in METHODS.items() if method.requires.vocabulary == "any"),
            where=f"pairs.{index}",
        )

    def _check_signal(self, name: str, options: Mapping[str, Any]) -> None:
        """InputError where a name in a pair cannot learn from the signal that the matrix asks for."""
        from dskd.methods import METHODS, get

        method, settings = self.matrix.method_of(name), self.matrix.signal_of(name)
        where = f"{self.artifacts.source}: {self.matrix.place(name, 'teacher_signal')}"
        if settings.kind == "live":
            return
        if settings.kind not in get(method).requires.teacher_outputs:
            able = sorted(
                n for n, m in METHODS.items() if m.requires.teacher and settings.kind in m.requires.teacher_outputs
            )
            raise InputError(
                f"{where}.kind: {method} cannot learn from {settings.kind}; fix: kind: hidden_states, or only the methods "
                f"that can ({', '.join(able) or 'none'})"
            )
        if settings.kind == "top_k" and options["temperature"] != settings.temperature:
            raise InputError(
                f"{where}.temperature: the distributions would be kept at {settings.temperature:g}, but {method} compares "
                f"them at {options['temperature']:g}; fix: temperature: {options['temperature']:g} here, or methods.{name}"
            )

    def _check_whole_batches(self, name: str, options: Mapping[str, Any], training: Mapping[str, Any]) -> None:
        """InputError where a name in a pair reads the teacher's padded micro-batch, which is not there."""
        from dskd.methods import get

        if not get(self.matrix.method_of(name))(dict(options)).requires.padded_hidden:
            return
        where = f"{self.artifacts.source}: methods.{name}.upstream_parity: needs the teacher's prompt and padding"
        if self.matrix.signal_of(name).kind != "live":
            raise InputError(f"{where}, which no signal keeps; fix: teacher_signal: {{kind: live}} there")
        if training["packing"]:
            raise InputError(f"{where}, which packed rows have not; fix: training: {{packing: false}} there")

    def _check_rollouts(self, name: str) -> None:
        """InputError where a name in a pair, or its signal, cannot take text that the student writes."""
        from dskd.methods import METHODS, get

        method = self.matrix.method_of(name)
        where = f"{self.artifacts.source}: {self.matrix.place(name, 'training', 'rollouts')}"
        if get(method).requires.on_policy == "never":
            able = ", ".join(sorted(n for n, m in METHODS.items() if m.requires.on_policy != "never"))
            raise InputError(
                f"{where}: {method} learns from the data's text alone; fix: leave it out of pairs, or use {able}"
            )
        if self.matrix.signal_of(name).kind != "live":
            raise InputError(
                f"{where}: what is kept of a teacher says nothing about new text; fix: teacher_signal: {{kind: live}}"
            )

    def _student(self, cell: Cell) -> Artifact:
        import dskd.methods

        assert cell.student is not None
        method_name = self.matrix.method_of(cell.method)
        method = dskd.methods.get(method_name)
        options = method.Options.model_validate(self.matrix.method_options(cell.method)).model_dump()
        training = training_options(self.matrix.training_of(cell.method))
        name, longest = self.matrix.training.data, training["max_length"]
        if method.requires.response_source == "teacher":
            answers = self._answers(cell.teacher, options)
            data = self.artifacts.data(name, cell.student, None, longest, answers)
        else:
            # One data set for all methods of a pair, SFT too: none may see examples that another does not.
            data = self.artifacts.data(name, cell.student, cell.teacher, longest)
        student = self.artifacts.model(cell.student)
        teacher = self.artifacts.model(cell.teacher) if method.requires.teacher else None
        settings, signal, launch = self.matrix.signal_of(cell.method), None, self._launch_arguments()
        if training["rollouts"] is not None:
            self._check_rollouts(cell.method)
        elif method.requires.on_policy == "always":
            raise InputError(
                f"{self.artifacts.source}: methods.{cell.method}.training.rollouts: {method_name} learns from the student's own "
                "text alone; fix: rollouts: {share: 1} there, and teacher_signal: {kind: live}"
            )
        if teacher is not None:
            self._check_signal(cell.method, options)
            self._check_whole_batches(cell.method, options, training)
            if settings.kind != "live":
                signal = self.artifacts.signal(
                    cell.teacher,
                    self.matrix.training.data,
                    max_length=training["max_length"],
                    dtype=training["dtype"],
                    settings=settings,
                )
        parts = {
            "code": CODE_VERSIONS["train"],
            "method": method.name,
            "options": method.Options.model_validate(options).identity(),
            "training": identity_options(training),
            "seed": cell.seed,
            "student": student.parts,
            "teacher": teacher.parts if teacher else None,
            "data": data.parts,
            # The teacher, the data and the dtype of a signal stand above; this is what is left of it.
            "signal": _signal_parts(settings) if teacher else None,
            # A step takes batch_size × gradient_accumulation_steps examples of each.
            "processes": launch["processes"],
        }
        if own := dskd.methods.own_code(method_name):
            parts["method_code"] = own
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
                "method": method_name,
                "method_options": options,
                "training": training,
                "seed": cell.seed,
                "signal": self._signal_arguments(signal) if signal else None,
                "launch": launch,
            },
        )
        needs = dict.fromkeys(
            need for artifact in (data, student, teacher, signal) if artifact for need in artifact.needs
        )
        return Artifact(self.artifacts.root / folder / "model", parts, self.artifacts.add(Node(spec, tuple(needs))))

    def _answers(self, teacher: str, options: Mapping[str, Any]) -> Artifact:
        return self.artifacts.answers(
            self.matrix.training.data,
            teacher,
            max_new_tokens=options["max_new_tokens"],
            temperature=options["answer_temperature"],
            engine=self.engine,
            evaluation=self.matrix.evaluation,
        )

    def _launch_arguments(self) -> dict[str, Any]:
        """The matrix's `launch`, with the configuration's own number of processes where the matrix gives none."""
        launch = self.matrix.launch.model_dump()
        if launch["accelerate_config"] is not None:
            from dskd.training.launch import configuration_file

            path = configuration_file(launch["accelerate_config"]).resolve()
            launch["accelerate_config"] = str(path)
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
            if launch["processes"] is None and isinstance(settings, dict):
                launch["processes"] = settings.get("num_processes")
        launch["processes"] = launch["processes"] or 1
        return launch

    def _signal_arguments(self, signal: Artifact) -> dict[str, Any]:
        """Where a signal lies, and what it takes to make it again where its files turn out damaged."""
        spec = self.artifacts.nodes[signal.needs[0]].spec
        return {"folder": spec.folder, **spec.arguments}

    def _evaluation(self, cell: Cell, model: Artifact, tasks: Sequence[str]) -> None:
        from harness import tasks as known_tasks

        outputs, arguments = [], {}
        settings = self.matrix.evaluation
        for entry in tasks:
            name = self.matrix.task_of(entry)
            task = known_tasks.load(name)
            protocol = self.matrix.protocol_of(entry, task.max_new_tokens)
            limits = [limit for limit in (self.matrix.tasks[entry].limit, self.limit) if limit is not None]
            options = {
                "limit": min(limits) if limits else None,
                "max_new_tokens": protocol.max_new_tokens or task.max_new_tokens,
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
                **task.identity(),
                "protocol": {key: value for key, value in protocol.settings.items() if key != "max_new_tokens"},
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
                protocol=protocol,
            )
            folder = eval_folder(cell.folder, entry, task.version, protocol.name)
            outputs.append(OutputSpec(folder=folder, identity=Identity.of(parts), cell=record_cell))
            arguments[str(record_cell.column)] = {"task": name, "protocol": protocol.settings, **options}
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
                "training_data": self._training_data(cell),
            },
        )
        self.artifacts.add(Node(spec, model.needs))

    def _training_data(self, cell: Cell) -> list[dict[str, Any]]:
        """What the models of a cell learned from, to be compared with test items."""
        import dskd.methods

        if cell.student is None:
            return training_data(self.artifacts, cell)
        method = dskd.methods.get(self.matrix.method_of(cell.method))
        from_answers = method.requires.response_source == "teacher"
        options = method.Options.model_validate(self.matrix.method_options(cell.method)).model_dump()
        answers = self._answers(cell.teacher, options) if from_answers else None
        return training_data(self.artifacts, cell, taught=method.requires.teacher or from_answers, answers=answers)

    def _world_parts(self) -> dict[str, Any]:
        from harness.smallworld.world import SMALL_WORLD_VERSION

        # The test sets are generated where they are needed, so an evaluation reads the world's version and not its files.
        return {"version": SMALL_WORLD_VERSION}


def _signal_parts(settings: SignalSettings) -> dict[str, Any]:
    return settings.options if settings.kind == "live" else {**settings.options, "version": CODE_VERSIONS["signal"]}

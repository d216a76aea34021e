"""How far an evaluated model is from its teacher, on its own answers and on the reference answers (docs/distances.md)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import dskd.distances
from dskd.modeling.loading import load_tokenizer
from dskd.teachers.options import TeacherSource
from harness import distances, tasks
from harness.costs.formulas import Lengths, teacher_work
from harness.costs.needs import pass_needs, unknown_needs, weight_bytes
from harness.costs.resources import Resources
from harness.costs.work import Device, Work
from harness.results.distances import DISTANCES, DistanceRecord, TextDistances, TextName
from harness.results.samples import read_samples
from harness.runs.environment import environment
from harness.runs.identity import Fingerprint
from harness.runs.job_context import JobContext
from harness.runs.job_spec import Output
from harness.runs.records import RecordCell
from harness.runs.store import write_text_atomic
from harness.steps.base import BY_HAND, NOT_IDENTITY, ModelInput, Of, Step, if_known
from harness.steps.evaluation import Evaluate, EvaluatedTask
from harness.steps.libraries import MODELS
from harness.steps.teacher_cache import TeacherCache, computing_device
from harness.steps.teacher_source import addresses_of, runs_here, teacher_source

TOP_K = 10
_ITEMS, _PROMPT_TOKENS = 1000, 512  # of a task, which is not read to find out
_LOGS: dict[TextName, str] = {"own_answers": "own.jsonl", "reference_answers": "references.jsonl"}


class Distances(Step):
    """Divergences, log-likelihoods, entropies and lengths of one model, an output for each task of its evaluation.

    Attributes:
        evaluation: Whose answers are compared.
        compared: The name of the teacher.
        teacher: The teacher; None for numbers of the model alone, and then `reason` says why.
        asked: The outputs that the teacher is asked for where it has no cache.
        caches: What the teacher says of the reference answers of the tasks in `cached`, computed once for all its students.
        member: Whether it is one of several teachers.
    """

    kind, version = "distances", 1

    cell: Annotated[RecordCell, NOT_IDENTITY]
    cell_folder: Annotated[str, NOT_IDENTITY]
    evaluation: Annotated[Of[Evaluate], BY_HAND]
    compared: Annotated[str, NOT_IDENTITY]
    teacher: Of[ModelInput] | None
    reason: str | None = None
    asked: dict[str, Any] | None
    caches: Annotated[list[Of[TeacherCache]], BY_HAND] = Field(default_factory=list)
    cached: Annotated[list[str], BY_HAND] = Field(default_factory=list)
    member: Annotated[bool, NOT_IDENTITY] = False

    def identity_parts(self) -> dict[str, Any]:
        caches = [cache.fingerprint for cache in self.caches]
        by_hand = {"evaluation": self.evaluation.fingerprint, "caches": caches, "cached": self.cached}
        return {**super().identity_parts(), **by_hand}

    @property
    def id(self) -> str:
        return f"distances:{self.folder.removeprefix('cells/').replace('/distances', '', 1)}"

    @property
    def folder(self) -> str:
        place = f"cells/{self.cell_folder}/distances"
        return f"{place}/{self.compared}" if self.member else place

    @property
    def is_target(self) -> bool:
        return True

    @cached_property
    def needs(self) -> tuple[Step, ...]:
        # The model itself, too: an evaluation that is done does not say that its model is still there.
        steps = (*self.evaluation.model.made_by, *super().needs)
        return tuple({step.id: step for step in steps}.values())

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        pairs = zip(self.evaluation.tasks, self.evaluation.outputs, strict=True)
        return tuple(self._output(task, evaluated) for task, evaluated in pairs)

    def _output(self, task: EvaluatedTask, evaluated: Output) -> Output:
        cache = self.cache_of(task.entry)
        parts = {
            "code": self.version,
            "evaluation": evaluated.fingerprint,
            "teacher": None if self.teacher is None else self.teacher.fingerprint,
            "reason": self.reason,
            "asked": self.asked,
            "cache": None if cache is None else cache.fingerprint,
            "dtype": self.evaluation.dtype,
            "top_k": TOP_K,
        }
        return Output(f"{self.folder}/{Path(evaluated.folder).name}", Fingerprint.of(parts), product=DISTANCES)

    def cache_of(self, entry: str) -> TeacherCache | None:
        """The cache for the reference answers of a task."""
        return dict(zip(self.cached, self.caches, strict=True)).get(entry)

    @property
    def loads(self) -> list[ModelInput]:
        return [self.evaluation.model, *self._loaded_teachers]

    @property
    def _loaded_teachers(self) -> list[ModelInput]:
        # Its own answers are the model's alone, so no cache has them.
        return [self.teacher] if self.teacher is not None and runs_here(self.teacher, None) else []

    @property
    def reaches(self) -> dict[str, tuple[str, ...]]:
        return addresses_of(self.teacher, None, self.asked or {})

    @property
    def libraries(self) -> tuple[str, ...]:
        return MODELS

    def _work(self, model: ModelInput) -> Work:
        """A pass of a model over both kinds of texts, taken to be as long as they can be."""
        sizes = [_size_of(task) for task in self.evaluation.tasks]
        texts = 2 * sum(count for count, _ in sizes)
        answers = 2 * sum(count * tokens for count, tokens in sizes) / texts
        lengths = Lengths(texts, _PROMPT_TOKENS, answers)
        return teacher_work(self.kind, "", Device(), model.shape, self.evaluation.dtype, lengths)

    def resources(self) -> Resources:
        """Both models at once, and a pass of each over the texts."""
        loaded = if_known(lambda: [(each.shape, self._work(each)) for each in self.loads])
        if loaded is None:
            return unknown_needs(1)
        dtype = self.evaluation.dtype
        passes = [pass_needs(work, shape, dtype) for shape, work in loaded]
        beside = sum(sorted(weight_bytes(shape, dtype) for shape, _ in loaded)[:-1])
        largest = max(passes, key=lambda each: each.memory + (each.device_memory or 0))
        return largest.replaced(
            memory=largest.memory + beside,
            device_memory=None if largest.device_memory is None else largest.device_memory + beside,
            minutes=sum(each.minutes or 0.0 for each in passes),
        )

    def run(self, job: JobContext) -> None:
        """Measure the tasks whose distances are wanted; each is on the disk as soon as it is done."""
        models = dskd.distances.Models(self.evaluation.dtype, computing_device())
        own = {output.folder: number for number, output in enumerate(self.outputs)}
        for output in list(job.pending):
            number = own[output.folder]
            task = self.evaluation.tasks[number]
            begun = job.seconds()
            texts = self._measure(job, models, task, self.evaluation.outputs[number], job.root / output.folder)
            cost = job.cost(wall_seconds=round(job.seconds() - begun, 3))
            about = {"task": task.task, "task_version": task.version, "protocol": task.protocol}
            record = DistanceRecord(
                cell=self.cell.model_copy(update=about),
                teacher=self.compared,
                identity=output.fingerprint.identity,
                top_k=TOP_K,
                texts=texts,
                cost=cost,
                environment=environment(None, None),
            )
            write_text_atomic(job.root / output.folder / DISTANCES, record.model_dump_json(indent=2) + "\n")
            job.finish(output, cost=cost)
            for name in _LOGS.values():
                (job.root / output.folder / name).unlink(missing_ok=True)
            if job.pending:
                job.stop_here(f"after task {task.entry}")

    def _measure(
        self, job: JobContext, models: dskd.distances.Models, entry: EvaluatedTask, evaluated: Output, folder: Path
    ) -> dict[TextName, TextDistances]:
        task, samples = tasks.load(entry.task), read_samples(job.root / evaluated.folder)
        student = load_tokenizer(self.evaluation.model.path(job.root))
        if (cache := self.cache_of(entry.entry)) is not None:
            cache.repair(job)
        live, cached = self._source(job.root, None), self._source(job.root, cache)
        teacher = None if live is None else load_tokenizer(live.tokenizer_folder)
        given: dict[TextName, tuple[distances.Texts, TeacherSource | None]] = {
            "own_answers": (distances.own_answers(task, samples, entry.limit, teacher), live),
            "reference_answers": (distances.reference_answers(task, entry.limit, student, teacher), cached),
        }
        found: dict[TextName, TextDistances] = {}
        for name, (texts, source) in given.items():
            if texts.reason is not None:
                found[name] = distances.nothing(texts.reason)
                continue
            measured = dskd.distances.measure(
                texts.texts,
                self.evaluation.model.path(job.root),
                source,
                models=models,
                k=TOP_K,
                log=folder / _LOGS[name],
                progress=_reporter(job, f"{entry.entry}, {name.replace('_', ' ')}"),
            )
            found[name] = distances.summarise(texts, measured, _place(source), self.reason)
        found["own_answers"].values.update(distances.of_lengths(distances.lengths(task, samples, entry.limit)))
        return found

    def _source(self, root: Path, cache: TeacherCache | None) -> TeacherSource | None:
        return None if self.teacher is None else teacher_source(self.teacher, cache, None, self.asked or {}, root)


def _size_of(task: EvaluatedTask) -> tuple[int, int]:
    """(texts, tokens of each) at most, as far as a task is known without its documents."""
    return (task.limit or _ITEMS) * task.protocol.num_samples, max(1, task.max_new_tokens)


def _place(source: TeacherSource | None) -> Any:
    if source is None:
        return None
    return "cache" if source.cache is not None else "served" if source.served is not None else "live"


def _reporter(job: JobContext, stage: str) -> Callable[[int, int], None]:
    """Says how far a measurement is, and stops where that was asked for: its batches are on the disk."""

    def report(done: int, total: int) -> None:
        job.progress.advance(stage, done, total)
        job.stop_here("after the texts that it had finished")

    return report

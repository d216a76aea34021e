"""The training of a student."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic_core import to_jsonable_python

import dskd
import dskd.data
from dskd import methods
from dskd.compatibility import Problem, check, missing_engine, rules_of
from dskd.methods import Method
from dskd.training.launch import configuration_file, launch_training
from dskd.training.options import TrainingOptions, TrainingReport
from dskd.training.provenance import Provenance, checkout, package_versions
from harness.costs.formulas import Lengths, training_work
from harness.costs.model_shapes import Shape
from harness.costs.needs import UNKNOWN_LENGTHS, training_needs, unknown_needs, weight_bytes
from harness.costs.resources import Resources
from harness.costs.work import Device, Work
from harness.runs.environment import peak_memory_of_children
from harness.runs.identity import Fingerprint
from harness.runs.job_context import JobContext
from harness.runs.job_spec import Output
from harness.runs.records import RecordCell
from harness.steps.base import BY_HAND, NOT_IDENTITY, OMIT_NONE, ModelInput, Of, Step, TrainingSource, if_known, same_as
from harness.steps.base_model import split_options, training_cost, training_progress
from harness.steps.data import PreparedData
from harness.steps.libraries import TRAINING
from harness.steps.origins import data_origin, model_origin
from harness.steps.served_model import ServedModel
from harness.steps.several_teachers import TaughtBySeveral
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_reference import TeacherReference
from harness.steps.teacher_source import ASKED_LIVE, addresses_of, runs_here, teacher_source
from harness.steps.text_mixture import text_used

_COUNTS_MICRO_BATCHES = "DEEPSPEED"


class Train(Step, ModelInput):
    """A student trained by a method.

    teacher_outputs: what the student learns from, `{"kind": "live"}` or the options of `cache`; None without a teacher.
    method_options: all of the method's options. method_code: sha256 of a method's file from outside the package.
    """

    kind, version, product = "train", 3, "model"

    cell: Annotated[RecordCell, NOT_IDENTITY]
    output_folder: Annotated[str, NOT_IDENTITY]
    data: Of[PreparedData | TaughtBySeveral]
    student: Of[ModelInput]
    teacher: Of[ModelInput] | None
    cache: Annotated[Of[TeacherCache] | None, NOT_IDENTITY] = None  # its parts are in the identity each by itself
    # What a local copy of a served teacher answers to the probe's texts: it can refuse a teacher and changes nothing else.
    reference: Annotated[Of[TeacherReference] | None, NOT_IDENTITY] = None
    # The frozen model that a method compares with; None for one without, and where it is the student as it starts.
    frozen: Annotated[Of[ModelInput] | None, OMIT_NONE] = None
    method: str
    method_options: Annotated[dict[str, Any], BY_HAND]
    method_code: Annotated[str | None, OMIT_NONE] = None
    teacher_outputs: Annotated[dict[str, Any] | None, BY_HAND] = None
    training: TrainingOptions
    seed: int
    # A step takes batch_size × gradient_accumulation_steps examples of each process.
    processes: int = 1
    accelerate_config: Annotated[Path | None, NOT_IDENTITY] = None

    def identity_parts(self) -> dict[str, Any]:
        outputs = self.teacher_outputs
        if outputs is not None and self.cache is not None:
            outputs = {**outputs, "version": TeacherCache.version}
        return {
            **super().identity_parts(),
            "method": self.configured.name,  # also of one that is named as package.module:Class
            "options": _options_of(self.configured),
            "signal": outputs if self.teacher else None,
        }

    @property
    def configured(self) -> Method:
        """The method with its options."""
        return _configured(self.method, json.dumps(self.method_options, sort_keys=True))

    @property
    def id(self) -> str:
        return f"train:{self.output_folder.removesuffix('/train').removeprefix('cells/')}"

    @property
    def folder(self) -> str:
        return self.output_folder

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        return (Output(self.folder, self.fingerprint, self.cell, self.product),)

    @property
    def splits_batches(self) -> bool:  # type: ignore[override]
        return (
            not self.configured.requires.padded_hidden
            and launch_shape(self.accelerate_config)[1] != _COUNTS_MICRO_BATCHES
        )

    tokenizer_input = same_as("student.tokenizer_input")
    text_config = same_as("student.text_config")
    shape = same_as("student.shape")

    @property
    def lineage(self) -> list[TrainingSource]:
        return [*self.student.lineage, self.data.training_source]

    @property
    def teacher_lineage(self) -> list[TrainingSource]:
        # Of the teacher that is asked in training, or has written the responses.
        if self.teacher is not None:
            return self.teacher.lineage
        author = getattr(self.data.examples, "teacher", None)
        if author is None:
            return []
        unknown = [
            TrainingSource(None, reason=f"{author.name} is behind an address: what it was trained on is not known")
        ]
        return getattr(author, "lineage", unknown)

    def problems(self) -> Sequence[Problem]:
        if isinstance(self.data, TaughtBySeveral):
            return self.data.problems(self.configured, self.training)
        outputs = self.teacher_outputs or ASKED_LIVE
        return check(
            self.configured,
            **rules_of(outputs, served=isinstance(self.teacher, ServedModel)),
            rollouts=self.training.rollouts,
            packing=self.training.packing is True,
            has_teacher=self.teacher is not None,
        )

    @property
    def libraries(self) -> tuple[str, ...]:
        return TRAINING

    def preflight(self, root: Path) -> Sequence[Problem]:
        if missing := missing_engine(self.training.rollouts):
            return missing
        if isinstance(self.data, TaughtBySeveral):
            return list(self.data.preflight(self.configured, self.student.name, root))
        counts = self.data.shared_tokens(root) if self.teacher is not None else None
        if self.teacher is None or counts is None:
            return ()
        shared, teacher_size, student_size, same = counts
        teacher, student = self.teacher.name, self.student.name
        pair = f"teacher '{teacher}' ({teacher_size:,} tokens) and student '{student}' ({student_size:,} tokens)"
        problems = check(self.configured, same_vocabulary=same, shared_tokens=shared, pair=pair)
        return [problem for problem in problems if problem.key in {"pair", "method"}]

    def estimate(self, device: Device) -> list[Work]:
        teacher = self.teacher.shape if self.teacher is not None else None
        return [self._work(device, self.student.shape, teacher, self.data.lengths)]

    def resources(self) -> Resources:
        loaded = if_known(lambda: [each.shape for each in self.loads])
        if loaded is None:
            return unknown_needs(self.processes, processes=self.processes)
        # A teacher of unknown shape that is not loaded is behind an address or in a cache: its head is left out.
        teacher = if_known(lambda: self.teacher.shape if self.teacher is not None else None)
        data = if_known(lambda: self.data.lengths)
        work = self._work(Device(), loaded[0], teacher, data or UNKNOWN_LENGTHS)
        weights = [weight_bytes(loaded[0], "float32")]
        weights += [weight_bytes(shape, self.training.dtype) for shape in loaded[1:]]
        if len(loaded) > 2:  # the largest of several teachers is in the estimate
            work = replace(work, bytes=work.bytes + sum(sorted(weights[1:])[:-1]))
        return training_needs([work], weights, self.processes, timed=data is not None)

    def _work(self, device: Device, student: Shape, teacher: Shape | None, lengths: Lengths) -> Work:
        what, options, needs = self.id.removeprefix("train:"), self.training.model_dump(), self.configured.requires
        launch = {"processes": self.processes, "sharded": launch_shape(self.accelerate_config)[1]}
        method = {
            "live": bool(self._loaded_teachers),
            "reference": needs.reference,
            "dual": needs.projectors,
            "chunkable": needs.chunkable,
        }
        return training_work(self.kind, what, device, student, options, lengths, launch, teacher, **method)

    def run(self, job: JobContext) -> None:
        """Train into the job's folder: `model/` is the student; an interrupted training resumes from its last checkpoint."""
        caches = self.data if isinstance(self.data, TaughtBySeveral) else self.cache
        repaired = caches.repair(job) if caches is not None else 0
        measured = caches.shared_cost(job) if caches is not None else {}
        report, measured["processes"] = self._train(job), self.processes
        if self._is_launched:  # the processes that trained are not this one
            measured["peak_memory"] = peak_memory_of_children()
            measured["peak_device_memory"] = report.peak_device_memory
        measured["distilled_share"] = report.distilled_share
        self._provenance(job.root).write(self.path(job.root))
        result = json.loads(report.model_dump_json())
        cost = training_cost(job, [result], teacher_examples=report.teacher_examples + repaired, **measured)
        text = text_used(self.data.examples, self.training.rollouts, job)
        if text is not None and text.without_text:
            print(f"{text.without_text:,} of {text.prompts:,} prompts have no text of the teacher's", flush=True)
        job.finish(job.output, report=result, cost=cost, text=text, **self._recorded())

    def _recorded(self) -> dict[str, Any]:
        """What else its record says."""
        return {}

    def _provenance(self, root: Path) -> Provenance:
        """What the student was made of; for the card of a model that leaves this machine."""
        author = self.teacher or getattr(self.data.examples, "teacher", None)
        commit, dirty = checkout()
        return Provenance(
            teacher=model_origin(author) if author is not None else None,
            student=model_origin(self.student),
            data=data_origin(self.data.examples),
            examples=self._examples(root),
            method=self.configured.name,
            method_options=self.configured.options.model_dump(mode="json"),
            training=self.training.model_dump(mode="json"),
            seed=self.seed,
            versions=package_versions(),
            commit=commit,
            dirty=dirty,
        )

    def _examples(self, root: Path) -> int:
        if isinstance(self.data, TaughtBySeveral):
            return self.data.kept(root)
        return dskd.data.preparation_report(self.data.path(root))["kept"]

    def _train(self, job: JobContext) -> TrainingReport:
        """Train in this process, or in several where that is asked for."""
        request: dict[str, Any] = {
            "student": self.student.path(job.root),
            "method": self.method,
            "method_options": self.method_options,
            "options": split_options(self.training, job),
            "seed": self.seed,
            "output": job.folder,
            "tags": self.tags(job.root),
            **self._more(job.root),
        }
        if isinstance(self.data, TaughtBySeveral):
            request["teachers"] = self.data.sources(job.root)
        else:
            request["data"] = self.data.path(job.root)
        if self.frozen is not None:
            request["reference"] = self.frozen.path(job.root)
        if self.teacher is not None and not isinstance(self.data, TaughtBySeveral):
            outputs = self.teacher_outputs or ASKED_LIVE
            request["teacher_source"] = teacher_source(self.teacher, self.cache, self.reference, outputs, job.root)
        progress = training_progress(job, "training")
        if not self._is_launched:
            return dskd.train(**request, progress=progress, stop=job.stop_requested)
        # The processes share the cores of this job.
        threads = int(os.environ.get("OMP_NUM_THREADS") or 1)
        os.environ["OMP_NUM_THREADS"] = str(max(1, threads // self.processes))
        return launch_training(
            to_jsonable_python(request),
            processes=self.processes,
            accelerate_config=str(self.accelerate_config) if self.accelerate_config else None,
            on_progress=progress,
            on_line=lambda line: print(line, flush=True),
            stop=job.stop_requested,
        )

    def _more(self, root: Path) -> dict[str, Any]:
        """Other arguments of `dskd.train`."""
        return {}

    def tags(self, root: Path) -> dict[str, str]:
        """What its run is known by in trackers."""
        tags = {
            "name": self.id.removeprefix("train:"),
            "run": root.name,
            "method": self.configured.name,
            "seed": str(self.seed),
            "student": self.student.name,
            "hash": self.fingerprint.short,
        }
        return tags if self.teacher is None else {**tags, "teacher": self.teacher.name}

    @property
    def reaches(self) -> dict[str, tuple[str, ...]]:
        if isinstance(self.data, TaughtBySeveral):
            return self.data.reaches
        return addresses_of(self.teacher, self.cache, self.teacher_outputs or ASKED_LIVE)

    @property
    def loads(self) -> Sequence[ModelInput]:
        frozen = [self.frozen or self.student] if self.configured.requires.reference else []
        return [self.student, *self._loaded_teachers, *frozen]

    @property
    def _loaded_teachers(self) -> list[ModelInput]:
        """The teachers that run in the training."""
        taught = self.data.parts if isinstance(self.data, TaughtBySeveral) else [self]
        return [each.teacher for each in taught if each.teacher is not None and runs_here(each.teacher, each.cache)]

    @property
    def _is_launched(self) -> bool:
        return self.accelerate_config is not None or self.processes > 1


@lru_cache(maxsize=256)
def _options_of(method: Method) -> Fingerprint:
    return Fingerprint.of(method.options.identity())


@lru_cache(maxsize=256)
def _configured(name: str, options: str) -> Method:
    return methods.get(name)(json.loads(options))


def launch_shape(accelerate_config: Path | None) -> tuple[int | None, str]:
    """(processes that an accelerate configuration asks for, "FSDP" or "DEEPSPEED" where it spreads the student's state, else "")."""
    content = None if accelerate_config is None else accelerate_config.read_text(encoding="utf-8")
    settings = yaml.safe_load(content or "")
    if not isinstance(settings, Mapping):
        return None, ""
    kind = str(settings.get("distributed_type", ""))
    return settings.get("num_processes"), kind if kind in {"FSDP", "DEEPSPEED"} else ""


def find_launch(processes: int | None = None, accelerate_config: str | None = None) -> tuple[int, Path | None]:
    """(processes, file) of a launch: where no number is given, the configuration's, or else one.

    InputError for a configuration that is neither a file nor one that ships.
    """
    path = configuration_file(accelerate_config).resolve() if accelerate_config is not None else None
    return processes or launch_shape(path)[0] or 1, path

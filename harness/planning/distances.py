"""The measurements of distances that a matrix asks for with `evaluation.distances`."""

from __future__ import annotations

from typing import Any

from harness.config.matrix import Cell
from harness.config.settings import TeacherOutputs
from harness.planning.caches import settings_of_cache
from harness.planning.served import gives_text_alone
from harness.planning.sources import Sources, once
from harness.steps.base import ModelInput
from harness.steps.distances import Distances
from harness.steps.evaluation import Evaluate, EvaluatedTask
from harness.steps.reference_texts import ReferenceTexts
from harness.steps.served_model import ADDRESS_OF, ServedModel
from harness.steps.teacher_cache import TeacherCache
from harness.steps.teacher_source import ASKED_LIVE
from harness.tasks import load
from harness.tasks.loglikelihood_task import LogLikelihoodTask

_TEACHER_ITSELF = "it is the teacher itself"
_TEMPERATURE = 1.0  # of the distributions that are compared


class DistanceSources(Sources):
    """A matrix's sources with the caches of reference answers, which all students of a teacher share."""

    @once
    def reference_cache(self, teacher: str, task: EvaluatedTask, name: str) -> TeacherCache:
        """What a teacher says of the reference answers of an entry of the matrix's `tasks`."""
        model, evaluation, caches = self.model(teacher), self.matrix.evaluation, self.matrix.teacher_cache
        kept = kept_outputs(model, self.matrix.teacher_outputs)
        texts = ReferenceTexts(
            title=f"references of {name} for {teacher}",
            task=task.task,
            task_version=task.version,
            limit=task.limit,
            extra=task.extra,
            teacher=model,
        )
        title = f"teacher cache of {teacher} on the references of {name}"
        return TeacherCache(**settings_of_cache(model, kept, evaluation.dtype, caches), title=title, data=texts)


def distance_steps(sources: DistanceSources, cell: Cell, evaluation: Evaluate) -> list[Distances]:
    """One for each teacher of a cell; of a teacher itself, its numbers alone."""
    shared: dict[str, Any] = {"cell": evaluation.cell, "cell_folder": cell.folder, "evaluation": evaluation}
    shared["compared"] = cell.teacher
    if cell.student is None:
        title = f"distances {cell.folder}"
        return [Distances(title=title, teacher=None, reason=_TEACHER_ITSELF, asked=None, **shared)]
    members = sources.matrix.members(cell.teacher)
    return [_distances(sources, name, len(members) > 1, cell, shared) for name in members]


def _distances(sources: DistanceSources, name: str, member: bool, cell: Cell, shared: dict[str, Any]) -> Distances:
    teacher, evaluation = sources.model(name), shared["evaluation"]
    title = f"distances {cell.folder}" + (f" from {name}" if member else "")
    shared |= {"compared": name, "member": member}
    asked = asked_outputs(teacher, sources.matrix.teacher_outputs)
    if asked is None:
        reason = f"{name} is behind an address and gives text alone"
        return Distances(title=title, teacher=None, reason=reason, asked=None, **shared)
    cached = [] if sources.matrix.teacher_outputs.is_live else [task for task in evaluation.tasks if _has_texts(task)]
    return Distances(
        title=title,
        teacher=teacher,
        asked=asked,
        caches=[sources.reference_cache(name, task, task.entry) for task in cached],
        cached=[task.entry for task in cached],
        **shared,
    )


def _has_texts(task: EvaluatedTask) -> bool:
    return not isinstance(load(task.task), LogLikelihoodTask)


def asked_outputs(teacher: ModelInput, outputs: TeacherOutputs) -> dict[str, Any] | None:
    """What a teacher without a cache is asked for: all that it can give. None where it gives nothing but text."""
    if not isinstance(teacher, ServedModel):
        return ASKED_LIVE
    if gives_text_alone(teacher):
        return None
    if ADDRESS_OF["hidden_states"] in teacher.addresses:
        return ASKED_LIVE
    if ADDRESS_OF["top_k"] not in teacher.addresses:
        return None
    if outputs.kind == "top_k":
        return {"kind": "top_k", "k": outputs.k}
    return {"kind": "text_log_probabilities"}


def kept_outputs(teacher: ModelInput, outputs: TeacherOutputs) -> dict[str, Any]:
    """What a cache keeps: of the kind of the matrix's `teacher_outputs` where the teacher gives it, at the temperature of distances."""
    asked = asked_outputs(teacher, outputs)
    kept = outputs.options if asked is None or asked["kind"] == ASKED_LIVE["kind"] else asked
    return {**kept, "temperature": _TEMPERATURE} if kept["kind"] == "top_k" else dict(kept)

"""Trainings of which a setting is tried, or was chosen: trials, trials that go on, and students of the chosen setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, PrivateAttr

from dskd.compatibility import Problem
from dskd.errors import NotFinite
from dskd.training.options import TrainingOptions
from harness import tasks
from harness.runs.job_context import JobContext
from harness.runs.job_spec import Output
from harness.runs.records import Counts, MetricValue
from harness.runs.store import artifact_folder, write_json_atomic
from harness.steps.base import NOT_IDENTITY
from harness.steps.contamination import warn_of_trained_items
from harness.steps.evaluation import Evaluate, EvaluatedTask
from harness.steps.leaks import VALIDATION, check_no_test_items
from harness.steps.ranking import Ranked, read_outcome, read_ranking
from harness.steps.reference import Reference
from harness.steps.training import Train
from harness.tuning.records import TuningRecord

_T = TypeVar("_T", bound=Train)
TRAINING = "training."  # before the name of an option of the training, in settings
_COMPARED = set[str]()  # training sets and tasks, each of which is looked at once
_DIVERGED = "diverged.json"  # in place of a student


def with_settings(training: _T, settings: Mapping[str, Any]) -> _T:
    """A training with other options of its method and of itself."""
    options, changes = dict(training.method_options), training.training.model_dump(exclude_unset=True)
    for name, value in settings.items():
        if name.startswith(TRAINING):
            changes = _put(changes, name.removeprefix(TRAINING).split("."), value)
        else:
            options = _put(options, name.split("."), value)
    return training.model_copy(update={"method_options": options, "training": TrainingOptions.model_validate(changes)})


def value_of(training: Train, option: str) -> Any:
    """What a training has as an option of its method, or of itself as `training.OPTION`."""
    content: Any = training.method_options
    if option.startswith(TRAINING):
        content = training.training.model_dump()
    for key in option.removeprefix(TRAINING).split("."):
        content = content[key]
    return content


def _put(group: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    return {**group, first: _put(group.get(first) or {}, rest, value) if rest else value}


def _resolved(training: _T, settings: Mapping[str, Any]) -> _T:
    """The same step, with the folder and the identity that the plan gave it, now that its settings are known."""
    resolved = with_settings(training, settings)
    resolved.__dict__["fingerprint"] = training.fingerprint
    return resolved


class _OfTuning(Train):
    """A training that tuning asks for: a share of the steps, for a comparison. It is read by others alone."""

    share: float = 1.0

    @property
    def id(self) -> str:
        return f"trial:{self.fingerprint.short}"

    @property
    def folder(self) -> str:
        return artifact_folder("trials", self.fingerprint)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        return (Output(self.folder, self.fingerprint, None, self.product),)

    def run(self, job: JobContext) -> None:
        """Train; a setting with which the loss stops being finite has no student, and is no failure of the run."""
        try:
            super().run(job)
        except NotFinite as error:
            print(f"no student: {error}", flush=True)
            folder = self.path(job.root)
            folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(folder / _DIVERGED, {"reason": str(error)})
            job.finish(job.output, report={"diverged": str(error)})

    def _more(self, root: Path) -> dict[str, Any]:
        return {"share": self.share} if self.share < 1 else {}


class Trial(_OfTuning):
    """A trial from its first step, with the settings that it tries among its options."""


class LaterTrial(_OfTuning):
    """A trial that was good enough to go on: the one at a place of an earlier ranking, from its checkpoint."""

    ranking: Reference
    position: int
    _entry: Ranked | None = PrivateAttr(default=None)

    def run(self, job: JobContext) -> None:
        entry = read_ranking(self.ranking.path(job.root))[self.position]
        resolved = _resolved(self, entry.record.settings)
        resolved._entry = entry
        _OfTuning.run(resolved, job)

    def _more(self, root: Path) -> dict[str, Any]:
        if self._entry is None:
            return super()._more(root)
        return {**super()._more(root), "start": root / self._entry.training}


class TunedTrain(Train):
    """A student of the setting that was chosen, trained anew with a seed that no trial has used.

    Attributes:
        ranking: The last one.
        tuning: What its record says of the tuning, but for the outcome.
    """

    ranking: Reference
    tuning: Annotated[dict[str, Any], NOT_IDENTITY] = Field(default_factory=dict)
    _record: TuningRecord | None = PrivateAttr(default=None)

    def run(self, job: JobContext) -> None:
        record = TuningRecord(**self.tuning, **read_outcome(self.ranking.path(job.root)))
        print(f"trial {record.chosen} was chosen: {record.settings or 'the default'}", flush=True)
        resolved = _resolved(self, record.settings)
        resolved._record = record
        Train.run(resolved, job)

    def _recorded(self) -> dict[str, Any]:
        return {"tuning": self._record}


class Validate(Evaluate):
    """The scores of a trial, or of a teacher, on validation items. Only a ranking reads them.

    Attributes:
        tested: The tasks that students are tested on, none of whose items may be among these.
    """

    tested: Annotated[list[str], NOT_IDENTITY] = Field(default_factory=list)

    @property
    def id(self) -> str:
        return f"validate:{self.fingerprint.short}"

    @property
    def folder(self) -> str:
        return artifact_folder("validation", self.fingerprint)

    @property
    def is_target(self) -> bool:
        return False

    def preflight(self, root: Path) -> Sequence[Problem]:
        for task in self.tasks:
            check_no_test_items(task.task.removesuffix(VALIDATION), self.tested)
        warn_of_trained_items(root, self.training_sources, [task.task for task in self.tasks], _COMPARED)
        return super().preflight(root)

    def _output(self, task: EvaluatedTask) -> Output:
        output = super()._output(task)
        return Output(f"{self.folder}/{output.folder.rpartition('/')[2]}", output.fingerprint, output.cell)

    @property
    def outputs_by_task(self) -> dict[str, str]:
        """The folder of each task's record, under the root."""
        return {task.task: output.folder for task, output in zip(self.tasks, self.outputs, strict=True)}

    def run(self, job: JobContext) -> None:
        if not (self.model.path(job.root) / _DIVERGED).is_file():
            super().run(job)
            return
        reason = "its training had no finite loss, so that there is no student"
        for output, evaluated in zip(self.outputs, self.tasks, strict=True):
            if output in job.pending:
                headline = tasks.load(evaluated.task).metrics[0].name
                job.finish(
                    output,
                    samples=[],
                    n=Counts(total=0, scored=0, invalid=0, truncated=0, harness_error=0),
                    headline=headline,
                    metrics={headline: MetricValue(value=None, reason=reason)},
                )

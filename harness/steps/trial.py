"""Trainings of which a setting is tried, or was chosen: trials, trials that resume, and students of the chosen setting."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, PrivateAttr

from dskd.errors import NotFinite
from dskd.training.options import TrainingOptions
from harness.runs.job_context import JobContext
from harness.runs.job_spec import Output
from harness.runs.store import artifact_folder, write_json_atomic
from harness.steps.base import NOT_IDENTITY
from harness.steps.ranking import Ranked, read_outcome, read_ranking
from harness.steps.reference import Reference
from harness.steps.training import Train
from harness.tuning.records import TuningRecord

_T = TypeVar("_T", bound=Train)
TRAINING = "training."  # before the name of an option of the training, in settings
DIVERGED = "diverged.json"  # in place of a student


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
            write_json_atomic(folder / DIVERGED, {"reason": str(error)})
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

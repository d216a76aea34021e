"""The scores of trials and teachers on validation items, which only rankings read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dskd.compatibility import Problem
from harness import tasks
from harness.runs.job_context import JobContext
from harness.runs.job_spec import Output
from harness.runs.records import Counts, MetricValue
from harness.runs.store import artifact_folder
from harness.steps.base import NOT_IDENTITY
from harness.steps.contamination import warn_of_trained_items
from harness.steps.evaluation import Evaluate, EvaluatedTask
from harness.steps.leaks import VALIDATION, check_no_test_items
from harness.steps.trial import DIVERGED

_COMPARED = set[str]()  # training sets and tasks, each of which is looked at once


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
        if not (self.model.path(job.root) / DIVERGED).is_file():
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

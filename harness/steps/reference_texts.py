"""The prompts of a task with its reference answers in a teacher's tokens, of which a teacher cache is computed for all its students."""

from __future__ import annotations

from typing import Annotated, Any

import dskd.data
import dskd.distances
from dskd.errors import InputError
from harness import tasks
from harness.costs.formulas import Lengths
from harness.runs.job_context import JobContext
from harness.steps.base import BY_HAND, ModelInput, Of, Step
from harness.steps.libraries import TOKENIZERS

_ITEMS = 1000  # of a task without a limit, and their lengths; it is not read to find out
_PROMPT_TOKENS, _RESPONSE_TOKENS = 256, 128


class ReferenceTexts(Step):
    """Texts as a teacher is asked about them when distances are measured on them.

    extra: what else the task's identity has (`Task.identity`).
    """

    kind, version, place, product = "reference-texts", 1, "reference-texts", "dataset"

    task: str
    task_version: str
    limit: int | None
    extra: Annotated[dict[str, Any], BY_HAND]
    teacher: Of[ModelInput]

    def identity_parts(self) -> dict[str, Any]:
        return {**super().identity_parts(), **self.extra}

    @property
    def set_name(self) -> str:
        """What a teacher cache of it is called by."""
        return f"the references of {self.task}"

    @property
    def lengths(self) -> Lengths:
        """About."""
        return Lengths(self.limit or _ITEMS, _PROMPT_TOKENS, _RESPONSE_TOKENS)

    @property
    def libraries(self) -> tuple[str, ...]:
        return TOKENIZERS

    def run(self, job: JobContext) -> None:
        reader = dskd.distances.reader_of(self.teacher.tokenizer_input.path(job.root), self.teacher.path(job.root))
        task = tasks.load(self.task)
        rows, left_out = [], 0
        for doc in task.docs(self.limit):
            prompt = task.render_prompt(doc, reader.tokenizer)
            row = dskd.distances.row_for_teacher(reader, prompt, task.reference(doc))
            rows += [] if row is None else [row]
            left_out += row is None
        if not rows:
            raise InputError(
                f"task {self.task}: none of its {left_out} reference answers can be read by {self.teacher.name}; fix: "
                "teacher_outputs: {kind: live}, or leave out evaluation.distances"
            )
        report = dskd.distances.write_rows(rows, reader, self.path(job.root))
        job.finish(job.output, report={**report, "left_out": left_out})

"""A training set of which the teacher has answered some examples, and others are as the data has them."""

from __future__ import annotations

import json
from typing import Any, get_args

from dskd.data.examples import as_row
from dskd.rollouts.options import RolloutOptions
from harness.responses.prompts import asked_of, prompt_key, rows_by_prompt
from harness.runs.job_context import JobContext
from harness.runs.records import TextUsed
from harness.runs.store import write_jsonl_atomic
from harness.steps.base import Input, ModelInput, Of, Step
from harness.steps.data import Examples
from harness.steps.endpoint_responses import EndpointResponses, TeacherEndpoint
from harness.steps.kept_responses import KeptResponses, Responses, read_rows
from harness.steps.teacher_responses import TeacherResponses

Written = TeacherResponses | EndpointResponses | KeptResponses
_STREAM = 0x7E87  # no seed that a training draws its order or its rollouts from


class TextMixture(Step):
    """The examples of a training set, each with one response: the data's, or with probability `share` one of the teacher's.

    Each example has a random source of its own, by its number in the data. Its first number decides who writes, its second which of
    several responses it gets. So the mixture is one for all students, seeds, processes and batches. An example that the teacher has no
    response for keeps the data's, and is counted.
    """

    kind, version, place, product = "text-mixture", 1, "answers", "examples.jsonl"

    responses: Of[Written]
    share: float

    @property
    def name(self) -> str:
        """What its examples are called in records."""
        return f"{self.examples.name}, {self.share:g} of it {self.responses.name.partition(', ')[2]}"

    @property
    def examples(self) -> Examples:
        """The training set."""
        return self.responses.examples

    @property
    def limit(self) -> int | None:
        """So many rows of it."""
        return self.responses.limit

    @property
    def teacher(self) -> ModelInput | TeacherEndpoint:
        """Who wrote the responses."""
        return self.responses.teacher

    def run(self, job: JobContext) -> None:
        """Write the examples."""
        takes = self.responses.takes(job.root)
        answered = rows_by_prompt(self.responses.path(job.root), takes)
        rows: list[dict[str, Any]] = []
        drawn = missing = 0
        for number, (_, item) in enumerate(read_rows(self.examples, job.root, takes, self.limit)):
            first, second = _numbers(number)
            own = answered.get(prompt_key(asked_of(item)), ())
            drawn += first < self.share
            missing += first < self.share and not own
            rows.append(own[int(second * len(own))] if first < self.share and own else as_row(item))
        report = {"prompts": len(rows), "of_teacher": drawn - missing, "without_text": missing}
        print(json.dumps(report, indent=2), flush=True)
        write_jsonl_atomic(self.path(job.root), rows)
        job.finish(job.output, report=report)


def _numbers(example: int) -> tuple[float, float]:
    """The two random numbers of an example, uniform in [0, 1)."""
    import numpy as np

    first, second = np.random.default_rng(np.random.SeedSequence([_STREAM, example])).random(2)
    return float(first), float(second)


# Of the jobs whose reports say how many prompts have no text.
KINDS = frozenset(each.kind for each in (TextMixture, *get_args(Written)))


def mixed(responses: Responses | KeptResponses, share: float) -> Written | TextMixture:
    """Responses, or a mixture of them with the data where the teacher writes less than everything."""
    if share >= 1:
        return responses
    what = f"{share:g} of {responses.examples.name}"
    return TextMixture(title=f"{what} by {responses.teacher.name}", responses=responses, share=share)


def text_used(examples: Input, rollouts: RolloutOptions | None, job: JobContext) -> TextUsed | None:
    """Who wrote what a student was trained on; None where the data did alone.

    Args:
        examples: What its data was made of.
        rollouts: Of the training.
        job: The training's, whose run has the reports of what the teacher wrote.
    """
    teacher = examples.share if isinstance(examples, TextMixture) else float(isinstance(examples, Written))
    if not teacher and rollouts is None:
        return None
    adaptive = rollouts is not None and rollouts.replay is not None and rollouts.replay.schedule == "adaptive"
    student = None if adaptive else 0.0 if rollouts is None else rollouts.share
    before = 1.0 - (student or 0.0)  # of what is not written in the training
    used: dict[str, Any] = {"data": before * (1.0 - teacher), "teacher": before * teacher, "student": student}
    if isinstance(examples, TextMixture | Written):
        manifest = job.store.output(examples.folder).manifest
        report = {} if manifest is None else manifest.report
        used |= {key: report[key] for key in ("prompts", "without_text") if key in report}
    rounded = {key: round(value, 9) if isinstance(value, float) else value for key, value in used.items()}
    return TextUsed.model_validate(rounded)

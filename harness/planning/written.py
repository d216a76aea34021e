"""What a teacher writes for a student to be trained on, as steps: its responses, those of them that are kept, and mixtures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dskd.compatibility import Problem
from dskd.errors import InputError
from dskd.text import TeacherText, Text
from harness.smallworld.world import FAMILIES
from harness.steps.base import ModelInput
from harness.steps.data import Examples, WorldExamples
from harness.steps.kept_responses import KeptResponses, Responses, scorers_of
from harness.steps.teacher_responses import TeacherResponses
from harness.steps.text_mixture import TextMixture, Written, mixed


def written_by(responses: Responses, text: Text, *, allow_code_execution: bool) -> Written | TextMixture:
    """The teacher's part of a text, in a mixture with the data's where that has a part of what is there before the training.

    Raises:
        InputError: `task: …`, where a task has to say what is right and none can.
    """
    assert text.teacher is not None
    kept = kept_step(responses, text.teacher, allow_code_execution=allow_code_execution)
    return mixed(kept, text.teacher_part)


def responses_step(
    examples: Examples, limit: int | None, teacher: ModelInput, asked: TeacherText, answering: Mapping[str, Any]
) -> TeacherResponses:
    """A teacher's responses to examples. asked: how it is asked; answering: of `evaluation` in a matrix."""
    several = f", {asked.samples} samples" if asked.samples > 1 else ""
    return TeacherResponses(
        title=f"responses of {teacher.name} to {examples.name}{several}",
        examples=examples,
        limit=limit,
        teacher=teacher,
        max_new_tokens=asked.max_new_tokens,
        temperature=asked.sampled_at,
        samples=asked.samples if asked.samples > 1 else None,
        **answering,
    )


def lacking_responses(examples: Examples, text: Text | None, method: str) -> Problem | None:
    """What stops a method from learning from prompts alone: that nobody writes responses to them before the training.

    Args:
        examples: The training set.
        text: Who writes; None for the data.
        method: The name of the method in the matrix.
    """
    if examples.has_responses or (text is not None and text.teacher_part == 1):
        return None
    needs, fix = "learns from responses of the data", "text: teacher"
    if text is not None and text.only == "student":  # what then is trained on is the teacher's response
        needs, fix = (
            "takes the data's response where the student's cannot be used",
            "text: {student: 0.9, teacher: 0.1}",
        )
    return Problem("method", f"{method} {needs}, and data.{examples.name} has prompts alone", f"{fix}, or other data")


def kept_step(responses: Responses, asked: TeacherText, *, allow_code_execution: bool) -> Responses | KeptResponses:
    """The responses that are kept of all.

    Raises:
        InputError: `task: …`, where a task has to say what is right and none can.
    """
    if asked.keep == "all":
        return responses
    if asked.task is None and not isinstance(responses.examples, WorldExamples):
        raise InputError(f"task: is missing, and keep: {asked.keep} asks what is right; fix: task: NAME, such as gsm8k")
    try:
        scorers = scorers_of([asked.task] if asked.task is not None else sorted(FAMILIES))
    except InputError as error:
        raise InputError(f"task: {error}") from None
    return KeptResponses(
        title=f"{asked.keep.replace('_', ' ')} {responses.title}",
        responses=responses,
        keep=asked.keep,
        scorers=scorers,
        allow_code_execution=allow_code_execution,
    )

"""The tasks that a student of a draft can be evaluated on here, and why others are left out."""

from __future__ import annotations

from dataclasses import dataclass

from dskd.errors import InputError
from harness import tasks
from harness.draft.sample import DraftedData
from harness.planning.checks import endings_agree, shared_ending

_COMPARED = 200
_LIMIT_ON_CPU = 100


@dataclass(frozen=True)
class DraftedTask:
    """A task whose data is here.

    Attributes:
        name: Of the task.
        other_prompts: Whether it asks in other words than the students are trained on.
        limit: On so many items; None for all.
        runs_code: Whether it runs what a model writes, which a run has to be allowed.
    """

    name: str
    other_prompts: bool
    limit: int | None
    runs_code: bool


def tasks_here(data: DraftedData, *, templates: bool, on_gpu: bool) -> list[DraftedTask]:
    """The tasks whose data is here and right.

    Args:
        data: The training set. Tasks of generated items are for those that are trained on such alone: their prompts say so.
        templates: Whether the models are asked in templates.
        on_gpu: Whether all items can be evaluated in reasonable time.
    """
    ending = "" if templates else shared_ending(data.prompts[:_COMPARED])
    found = []
    for name in tasks.names():
        try:
            task = tasks.load(name)
            checks = [file.check() for file in task.data_files]
        except InputError:  # a plugin's that cannot be loaded, or no folder of data: `harness data verify` says it
            continue
        if any(check.status != "right" for check in checks) or (templates and not task.supports_chat):
            continue
        asked = "" if templates else shared_ending(map(task.prompt, task.docs(_COMPARED)))
        agree = None if templates else endings_agree(ending, asked)
        if not checks and not agree:
            continue
        limit = None if on_gpu or not checks else _LIMIT_ON_CPU
        found.append(DraftedTask(name, agree is False, limit, task.runs_code))
    return found

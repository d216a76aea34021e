"""The tasks that a student of a draft can be evaluated on here, and why others are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dskd.errors import InputError
from harness import tasks
from harness.draft.sample import DraftedData
from harness.planning.checks import COMPARED, endings_agree, shared_ending
from harness.tasks.small_world import SmallWorldTask
from harness.tasks.task import Task

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
        data: The training set; the tasks of the small world are for students that are trained on its data.
        templates: Whether the models are asked in templates.
        on_gpu: Whether all items can be evaluated in reasonable time.
    """
    trained = "" if templates else shared_ending(data.prompts)
    of_the_world = not templates and _is_small_world(data.prompts)
    found = []
    for name in tasks.names():
        try:
            task = tasks.load(name)
            checks = [file.check() for file in task.data_files]
            here = all(check.status == "right" for check in checks) and bool(task.docs(1))
        except (
            InputError
        ):  # a plugin's that cannot be loaded, no folder of data, nothing to score with: commands that use it say so
            continue
        suits = (task.supports_chat or not templates) and (of_the_world or not isinstance(task, SmallWorldTask))
        if here and suits:
            clash = not templates and endings_agree(trained, _ending(task)) is False
            limit = None if on_gpu or not checks else _LIMIT_ON_CPU
            found.append(DraftedTask(name, clash, limit, task.runs_code))
    return found


def _ending(task: Task) -> str:
    return shared_ending(map(task.prompt, task.docs(COMPARED)))


def _is_small_world(prompts: Sequence[str]) -> bool:
    """Whether prompts end in all the ways of the small world's three kinds of examples."""
    endings = [_ending(task) for task in map(tasks.load, tasks.names()) if isinstance(task, SmallWorldTask)]
    return all(any(prompt.endswith(ending) for prompt in prompts) for ending in endings)

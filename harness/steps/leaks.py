"""Nothing that chooses may read a test item: validation items are compared with test sets before anything runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

from dskd.errors import InputError
from harness import tasks
from harness.tasks.task import Doc, Task

VALIDATION = ":validation"


def check_no_test_items(name: str, tested: Iterable[str] = ()) -> None:
    """Compare the validation items of a task with the test sets, its own and others, spaces and case of questions aside.

    Args:
        name: The task, without `:validation`.
        tested: The other tasks that students are tested on. Two tasks may share a data set, as mbpp and mbpp_plus do.

    Raises:
        InputError: Where an item is in both.
    """
    for other in dict.fromkeys((name, *(each for each in tested if not each.endswith(VALIDATION)))):
        shared = _shared(name, other, os.environ.get("HARNESS_DATA"))
        if not shared:
            continue
        total, own = len(tasks.load(f"{name}{VALIDATION}").docs()), other == name
        fix = "correct `validation_documents` of the task" if own else f"leave {other} out"
        raise InputError(
            f"tuning.tasks: {len(shared)} of the {total} validation items of {name} are test items{'' if own else f' of {other}'}, "
            f"as {shared[0]}; fix: {fix}, or choose by the validation items of others"
        )


@cache
def _shared(name: str, other: str, folder: str | None) -> tuple[str, ...]:  # noqa: ARG001 - what is remembered is of this folder
    """The ids of the validation items of a task that are in the test set of another; `folder`: of the data, which may change."""
    validation, test = tasks.load(f"{name}{VALIDATION}"), tasks.load(other)
    tested = {key for doc in test.docs() for key in _keys(test, doc)}
    return tuple(doc["id"] for doc in validation.docs() if not tested.isdisjoint(_keys(validation, doc)))


def _keys(task: Task, doc: Doc) -> list[tuple[str, str | None]]:
    """By what an item is known: its question, and its name in the data set where it has one in several tasks."""
    name = task.item(doc)
    plain = " ".join(task.question(doc).split()).casefold()
    return [("question", plain), *([] if name is None else [("item", name)])]

"""Nothing that chooses may read a test item: validation items are compared with the test set before anything runs."""

from __future__ import annotations

from dskd.errors import InputError
from harness import tasks

VALIDATION = ":validation"


def check_no_test_items(name: str) -> None:
    """Compare the questions of a task's validation items with those of its test set, spaces and case aside.

    Args:
        name: The task, without `:validation`.

    Raises:
        InputError: Where a question is in both.
    """
    test, validation = tasks.load(name), tasks.load(f"{name}{VALIDATION}")
    tested = {_plain(test.question(doc)) for doc in test.docs()}
    shared = [doc["id"] for doc in validation.docs() if _plain(validation.question(doc)) in tested]
    if shared:
        raise InputError(
            f"tuning: {len(shared)} of the {len(validation.docs())} validation items of {name} are test items, as {shared[0]}; "
            "fix: correct `validation_documents` of the task, or choose by others with tuning.tasks"
        )


def _plain(question: str) -> str:
    return " ".join(question.split()).casefold()

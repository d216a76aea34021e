"""The rule by which trials are ranked. It is fixed before anything is trained, and knows validation scores alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RULE = "mean of the tasks' validation scores, each in per cent of the teacher's; of equal ones the earlier trial"


def score(scores: Mapping[str, float | None], teacher: Mapping[str, float | None]) -> float | None:
    """The mean over tasks of a trial's score in per cent of the teacher's.

    Args:
        scores: The validation score of each task, 0 to 100; None where there is none.
        teacher: The teacher's. A task that the teacher has no score above 0 on is taken as it is.

    Returns:
        The mean; None for a trial that has no score on a task.
    """
    parts = []
    for task, value in scores.items():
        if value is None:
            return None
        scale = teacher.get(task)
        parts.append(100.0 * value / scale if scale else value)
    return round(sum(parts) / len(parts), 6)


def ranked(scores: Sequence[float | None], trials: Sequence[int]) -> list[int]:
    """The places of trials from the best to the worst: equal ones by the number of the trial, those without a score last."""

    def key(place: int) -> tuple[bool, float, int]:
        value = scores[place]
        return value is None, -(value or 0.0), trials[place]

    return sorted(range(len(scores)), key=key)

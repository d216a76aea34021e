"""When a checkpoint is due, by a clock that the test moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dskd.training.checkpoint_times import CheckpointTimes, expected_seconds
from dskd.training.checkpoints import RunFolder


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _written(times: CheckpointTimes, clock: Clock, *, cost: float, step_seconds: float, steps: int) -> list[int]:
    """After which steps checkpoints were written that take `cost` seconds each."""
    found = []
    for step in range(1, steps + 1):
        clock.now += step_seconds
        if times.due_by_steps(step) or times.due_by_time():
            clock.now += cost
            times.written(cost)
            found.append(step)
    return found


@pytest.mark.parametrize("cost", [0.01, 0.2, 3.0, 60.0])
def test_checkpoints_take_a_twentieth_of_the_time_at_most_and_the_first_comes_soon(cost: float) -> None:
    clock = Clock()
    times = CheckpointTimes(expected=cost, clock=clock)
    found = _written(times, clock, cost=cost, step_seconds=0.05, steps=200_000)
    assert len(found) * cost <= clock.now / 20
    assert len(found) * cost >= clock.now / 60 or cost < 0.05  # nor far less, but for those that take no time
    assert found[0] * 0.05 <= max(1.0, 20 * cost) + 0.11


def test_what_is_given_counts_and_either_rule_asks() -> None:
    clock = Clock()
    assert _written(CheckpointTimes(3, clock=clock), clock, cost=0, step_seconds=9, steps=10) == [3, 6, 9]
    assert _written(CheckpointTimes(None, 4.0, clock=clock), clock, cost=0, step_seconds=1, steps=9) == [4, 8]
    assert _written(CheckpointTimes(5, 2.0, clock=clock), clock, cost=0, step_seconds=1, steps=6) == [2, 4, 5]


@pytest.mark.parametrize("given", [{}, {"steps": 200}, {"seconds": 600.0}])
def test_starts_that_get_no_further_are_followed_by_earlier_checkpoints(tmp_path: Path, given: dict[str, Any]) -> None:
    """Killed 0.8 s after its first step began, with steps of 0.3 s, a training goes on although the rule says one second or more."""
    folder, done, starts = RunFolder(tmp_path), 0, 0
    while done < 20:
        starts += 1
        assert starts < 40
        clock = Clock()
        times = CheckpointTimes(**given, expected=expected_seconds(10**6), stalled=folder.started(done), clock=clock)
        for step in range(done + 1, done + 3):
            clock.now += 0.3
            if times.due_by_steps(step) or times.due_by_time():
                times.written(0.05)
                done = step

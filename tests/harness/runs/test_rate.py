"""How fast something goes."""

from __future__ import annotations

import pytest

from harness.runs.rate import Rate


def test_the_rate_is_that_of_the_last_while() -> None:
    now = 0.0
    rate = Rate(window=30.0, clock=lambda: now)
    assert rate.at(0) is None
    now = 0.4
    assert rate.at(10) is None  # too soon to tell
    for step in range(1, 101):
        now = float(step)
        slow = rate.at(10 * step)
    assert slow == pytest.approx(10)
    count = 1000.0
    for step in range(101, 161):
        now, count = float(step), count + 50
        fast = rate.at(count)
    assert fast == pytest.approx(50)


def test_a_count_that_begins_anew_is_no_negative_rate_and_few_points_are_kept() -> None:
    now = 0.0
    rate = Rate(clock=lambda: now)
    for step in range(100_000):
        now = step / 1000
        rate.at(step)
    assert len(rate._seen) < 50
    assert rate.at(0) is None
    now += 2
    assert rate.at(4) == pytest.approx(2)

"""What a person sees of a run: the guess of the time left, and the lines and bars."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.cli.progress import BarReporter, PlainReporter, TimeLeft, duration
from harness.planning.plan import PlannedJob
from harness.scheduling.executor import Attempt
from harness.scheduling.outcome import Outcome
from helpers.executor_runs import fake, planned


def job(name: str) -> PlannedJob:
    return planned(Path(), fake(Path(), name, title=name))[0]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.21, "4.2 s"), (65, "1 min 05 s"), (3599.6, "1 h 00 min"), (7860, "2 h 11 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_time_left_is_guessed_from_jobs_of_the_same_kind() -> None:
    left = TimeLeft({"a": "train", "b": "train", "c": "train", "d": "evaluate"}, parallel=2)
    left.started("a", 0.0)
    assert left.seconds(1.0) is None  # nothing has shown its length
    left.ended("a", 10.0, counts=True)
    assert left.seconds(10.0) is None  # no evaluation has
    left.started("d", 10.0)
    left.advanced("d", 0.5)
    # At 12 the evaluation has done half in 2 s: 2 s are left of it, and two trainings of 10 s wait, two jobs at once.
    assert left.seconds(12.0) == pytest.approx((2 + 20) / 2)
    left.ended("d", 14.0, counts=True)
    left.started("b", 14.0)
    left.started("c", 14.0)
    assert left.seconds(20.0) == pytest.approx(4.0)


def test_a_job_that_failed_says_nothing_about_the_length_of_others() -> None:
    left = TimeLeft({"a": "train", "b": "train"}, parallel=1)
    left.started("a", 0.0)
    left.ended("a", 0.1, counts=False)
    assert left.seconds(1.0) is None


def play(reporter: PlainReporter) -> None:
    first, second, third = job("first [a]"), job("second"), job("third")
    with reporter:
        reporter.started(Attempt(first))
        reporter.said(first, {"event": "progress", "stage": "training", "done": 1, "total": 4})
        reporter.started(Attempt(second))
        reporter.said(second, {"event": "waiting"})
        reporter.ended(first, Outcome("done", seconds=3.0))
        reporter.ended(second, Outcome("failed", "RuntimeError: [x]", seconds=1.0))
        reporter.ended(third, Outcome("not_run", "needs 'second', which failed"))


def test_without_a_terminal_each_job_has_a_line_when_it_starts_and_when_it_ends() -> None:
    stream = io.StringIO()
    jobs = [job("first [a]"), job("second"), job("third")]
    play(PlainReporter(Console(file=stream), jobs, 2))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[0/3] start first [a]"
    assert lines[2] == "[0/3] wait  second  another run is doing it"
    assert lines[3].startswith("[1/3] done  first [a]  3.0 s")
    assert lines[4] == "[2/3] FAIL  second  1.0 s: RuntimeError: [x]"
    assert lines[5] == "[3/3] skip  third  needs 'second', which failed"


def test_a_terminal_gets_bars_and_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = io.StringIO()
    jobs = [job("first [a]"), job("second"), job("third")]
    console = Console(file=stream, force_terminal=True, width=120)
    play(BarReporter(console, jobs, 2))
    text = stream.getvalue()
    assert "whole run" in text
    assert "3/3 jobs" in text
    assert "RuntimeError: [x]" in text

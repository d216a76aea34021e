"""Order, tries and requests to stop, whatever the executor is."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs.job_spec import FAILED, MAY_PASS, STOPPED
from harness.scheduling.executor import Attempt, Ended, Settings
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder, fake, planned
from helpers.simulated_executor import SimulatedExecutor, well

Ends = Callable[[Attempt], Ended]


def ending(**codes: list[int]) -> Ends:
    """Tries of a job end with these codes, one after the other; those of others well."""

    def ends(attempt: Attempt) -> Ended:
        left = codes.get(attempt.job.id)
        if not left:
            return well(attempt)
        code = left.pop(0)
        kind = "out_of_memory" if code == 9 else ""
        return Ended(attempt.job.id, code, f"code {code}", kind, retry=code == MAY_PASS) if code else well(attempt)

    return ends


def make(root: Path, ends: Ends = well, **options: object) -> SimulatedExecutor:
    return SimulatedExecutor(Settings(root), ends, **options)  # type: ignore[arg-type]


def test_a_failure_that_may_pass_is_tried_three_times_and_another_one_once(tmp_path: Path) -> None:
    jobs = planned(tmp_path, fake(tmp_path, "luck"), fake(tmp_path, "never"), fake(tmp_path, "mistake"))
    executor = make(tmp_path, ending(luck=[MAY_PASS, MAY_PASS, 0], never=[MAY_PASS] * 9, mistake=[FAILED] * 9))
    outcomes = Runner(executor, Recorder(), delay=0.0).run(jobs)
    assert {key: outcome.status for key, outcome in outcomes.items()} == {
        "luck": "done",
        "never": "failed",
        "mistake": "failed",
    }
    assert outcomes["never"].reason == f"code {MAY_PASS} (3 tries)"
    assert outcomes["mistake"].reason == f"code {FAILED}"
    assert sorted(executor.started) == [
        ("luck", 1),
        ("luck", 2),
        ("luck", 3),
        ("mistake", 1),
        ("never", 1),
        ("never", 2),
        ("never", 3),
    ]
    assert not executor.is_open


def test_a_training_out_of_memory_is_tried_in_more_parts_and_another_job_is_not(tmp_path: Path) -> None:
    large, other = fake(tmp_path, "large"), fake(tmp_path, "other")
    jobs = planned(tmp_path, large, other)
    type(large).splits_batches = True
    try:
        executor = make(tmp_path, ending(large=[9, 9, 0]))
        outcomes = Runner(executor, Recorder(), delay=0.0).run(jobs)
        assert outcomes["large"].status == "done"
        assert [a.split_batches for a in executor.attempts if a.job.id == "large"] == [1, 2, 4]
    finally:
        type(large).splits_batches = False
    executor = make(tmp_path, ending(other=[9, 0]))
    outcomes = Runner(executor, Recorder(), delay=0.0).run(jobs)
    assert outcomes["other"].status == "failed"


def test_a_job_that_something_else_stopped_at_a_checkpoint_goes_on_and_no_try_is_counted(tmp_path: Path) -> None:
    jobs = planned(tmp_path, fake(tmp_path, "preempted"))
    executor = make(tmp_path, ending(preempted=[STOPPED] * 5 + [MAY_PASS, MAY_PASS, 0]))
    outcomes = Runner(executor, Recorder(), delay=0.0).run(jobs)
    assert outcomes["preempted"].status == "done"
    assert len(executor.started) == 8


def test_a_job_that_is_made_anew_resumes_in_later_tries(tmp_path: Path) -> None:
    jobs = planned(tmp_path, fake(tmp_path, "anew"))
    jobs[0].fresh = True
    seen: list[bool] = []

    def ends(attempt: Attempt) -> Ended:
        seen.append(attempt.job.fresh)
        return well(attempt) if len(seen) == 3 else Ended("anew", STOPPED)

    Runner(make(tmp_path, ends), Recorder(), delay=0.0).run(jobs)
    assert seen == [True, False, False]


@pytest.mark.parametrize("handed_over", [False, True])
def test_what_needs_a_job_that_failed_is_not_run(tmp_path: Path, handed_over: bool) -> None:
    bad = fake(tmp_path, "bad")
    child = fake(tmp_path, "child", after=(bad,))
    jobs = planned(tmp_path, fake(tmp_path, "grandchild", after=(child,)), fake(tmp_path, "other"))
    executor = make(tmp_path, ending(bad=[FAILED]))
    executor.takes_dependencies = handed_over  # type: ignore[misc]
    outcomes = Runner(executor, Recorder(), delay=0.0).run(jobs)
    assert {key: outcome.status for key, outcome in outcomes.items()} == {
        "bad": "failed",
        "child": "not_run",
        "grandchild": "not_run",
        "other": "done",
    }
    assert outcomes["child"].reason == "needs 'job bad', which failed"


def test_jobs_behind_a_try_that_failed_are_taken_back_and_handed_over_again(tmp_path: Path) -> None:
    first = fake(tmp_path, "first")
    jobs = planned(tmp_path, fake(tmp_path, "second", after=(first,)))
    executor = make(tmp_path, ending(first=[MAY_PASS, 0]))
    executor.takes_dependencies = True  # type: ignore[misc]
    outcomes = Runner(executor, Recorder(), delay=0.0).run(jobs)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert executor.started[:2] == [("first", 1), ("second", 1)]
    assert executor.stopped == [("second", True)]
    assert sorted(executor.started[2:]) == [("first", 2), ("second", 2)]
    assert next(a for a in executor.attempts if a.job.id == "second").after == ("first",)


def test_jobs_that_an_earlier_run_handed_over_are_watched_and_not_started_again(tmp_path: Path) -> None:
    first = fake(tmp_path, "first")
    jobs = planned(tmp_path, fake(tmp_path, "second", after=(first,)))
    executor = make(tmp_path, adopted=["first"])
    executor.takes_dependencies = True  # type: ignore[misc]
    outcomes = Runner(executor, Recorder()).run(jobs)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert executor.started == [("second", 1)]


def test_fail_fast_starts_nothing_more_and_lets_what_runs_end(tmp_path: Path) -> None:
    jobs = planned(tmp_path, *(fake(tmp_path, name) for name in ("bad", "beside", "later")))
    executor = make(tmp_path, ending(bad=[FAILED]))
    outcomes = Runner(executor, Recorder(), fail_fast=True).run(jobs)
    assert [outcomes[name].status for name in ("bad", "beside", "later")] == ["failed", "done", "not_run"]
    assert outcomes["later"].reason == "--fail-fast: another job failed"


def test_fail_fast_takes_back_what_waits_in_a_queue_of_the_executor(tmp_path: Path) -> None:
    first, bad = fake(tmp_path, "first"), fake(tmp_path, "bad")
    jobs = planned(tmp_path, bad, first, fake(tmp_path, "later", after=(first,)))
    executor = make(tmp_path, ending(bad=[FAILED]), seconds=lambda job: 1.0 if job.id == "bad" else 50.0)
    executor.takes_dependencies = True  # type: ignore[misc]
    outcomes = Runner(executor, Recorder(), fail_fast=True).run(jobs)
    assert {key: outcome.status for key, outcome in outcomes.items()} == {
        "bad": "failed",
        "first": "stopped",
        "later": "not_run",
    }
    assert executor.stopped[:2] == [("first", False), ("later", False)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_lets_running_jobs_reach_a_checkpoint_and_starts_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    jobs = planned(tmp_path, *(fake(tmp_path, f"job{k}") for k in range(4)))
    executor, recorder = make(tmp_path), Recorder()
    executor.on_poll = lambda: os.kill(os.getpid(), number) if not executor.stopped else None
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        Runner(executor, recorder).run(jobs)
    assert sorted(executor.started) == [("job0", 1), ("job1", 1)]
    assert {now for _, now in executor.stopped} == {False}
    ends = {job: status for status, job in recorder.events if status != "start"}
    assert ends["job1"] == "stopped"
    assert ends["job2"] == ends["job3"] == "not_run"
    assert signal.getsignal(number) is before
    assert not executor.is_open


def test_a_second_request_ends_the_run_at_once(tmp_path: Path) -> None:
    jobs = planned(tmp_path, fake(tmp_path, "one"), fake(tmp_path, "two"))
    executor = make(tmp_path)

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    executor.on_poll = twice
    with pytest.raises(KeyboardInterrupt):
        Runner(executor, Recorder()).run(jobs)
    assert not executor.is_open


def test_a_job_that_cannot_be_started_fails_alone(tmp_path: Path) -> None:
    jobs = planned(tmp_path, fake(tmp_path, "bad"), fake(tmp_path, "good"))
    executor = make(tmp_path)
    start = executor.start

    def refuse(attempt: Attempt) -> None:
        if attempt.job.id == "bad":
            raise OSError(12, "Cannot allocate memory")
        start(attempt)

    executor.start = refuse  # type: ignore[method-assign]
    outcomes = Runner(executor, Recorder()).run(jobs)
    assert outcomes["good"].status == "done"
    assert outcomes["bad"].reason.startswith("could not be started: ")

"""Slurm jobs when something dies: the harness, a node, the controller; preemption, time limits, Ctrl-C, two harnesses at once."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from helpers.executor_runs import Recorder, fake
from helpers.slurm_cluster import SlurmCluster
from helpers.slurm_runs import Run, counted, counting, execute, wait_until

pytestmark = pytest.mark.cluster


def numbers(root: Path, name: str) -> list[int]:
    """What a job has counted, in order."""
    return [int(line.split()[1]) for line in counted(root) if line.split()[0] == name]


def states(cluster: SlurmCluster) -> list[str]:
    return [state for (state,) in cluster.queue("%T")]


def test_the_run_goes_on_without_the_harness_and_the_same_command_watches_it(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    first = counting(tmp_path, "first", 4)
    fragile = fake(tmp_path, "fragile", "kill itself once", after=(first,))
    last = fake(tmp_path, "last", after=(fragile,))
    run = Run(tmp_path, last)
    wait_until(lambda: numbers(tmp_path, "first"))
    run.kill()
    submitted = [name for (name,) in cluster.queue("%i")]
    again = Run(tmp_path, last)
    outcomes = again.end()
    assert {status for status, _ in outcomes.values()} == {"done"}
    assert [name for (name,) in cluster.queue("%i")] == submitted, "nothing was handed over twice"
    assert counted(tmp_path) == ["first 1", "first 2", "first 3", "first 4", "fragile", "fragile", "last"]


def test_a_run_that_nobody_watches_is_done_when_somebody_looks(cluster: SlurmCluster, tmp_path: Path) -> None:
    first = counting(tmp_path, "first", 3)
    fragile = fake(tmp_path, "fragile", "kill itself once", after=(first,))
    last = fake(tmp_path, "last", after=(fragile,))
    run = Run(tmp_path, last)
    wait_until(lambda: counted(tmp_path))
    run.kill()
    wait_until(lambda: (tmp_path / "cells/last/manifest.json").exists())
    wait_until(lambda: set(states(cluster)) == {"COMPLETED"})
    before = counted(tmp_path)
    outcomes = execute(tmp_path, last)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert counted(tmp_path) == before
    assert len(cluster.queue()) == 3


def test_two_harnesses_at_once_hand_over_each_job_once(cluster: SlurmCluster, tmp_path: Path) -> None:
    steps = [counting(tmp_path, f"job{k}", 3, after=(counting(tmp_path, "first", 1),)) for k in range(2)]
    runs = [Run(tmp_path, *steps), Run(tmp_path, *steps)]
    for run in runs:
        assert {status for status, _ in run.end().values()} == {"done"}
    assert sorted(counted(tmp_path)) == sorted(["first 1", *(f"job{k} {n}" for k in range(2) for n in (1, 2, 3))])
    assert len(cluster.queue()) == 3


def test_a_preempted_job_goes_on_from_its_checkpoint(cluster: SlurmCluster, tmp_path: Path) -> None:
    jobs = [counting(tmp_path, f"job{k}", 6) for k in range(4)]
    run = Run(tmp_path, *jobs)
    wait_until(lambda: all(numbers(tmp_path, job.name) for job in jobs))
    cluster.run("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    outcomes = run.end(90)
    assert {status for status, _ in outcomes.values()} == {"done"}
    restarts = [cluster.run("scontrol", "show", "job", f"1_{k}") for k in range(4)]
    assert sum("Restarts=1" in each for each in restarts) == 2, "one node's jobs had to make room"
    for job in jobs:
        assert numbers(tmp_path, job.name) == [1, 2, 3, 4, 5, 6], "nothing was counted twice"


def test_a_requeued_job_goes_on_from_its_checkpoint(cluster: SlurmCluster, tmp_path: Path) -> None:
    step = counting(tmp_path, "job", 5)
    run = Run(tmp_path, fake(tmp_path, "after", after=(step,)))
    wait_until(lambda: numbers(tmp_path, "job"))
    cluster.run("scontrol", "requeue", "1")
    assert {status for status, _ in run.end().values()} == {"done"}
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", "1")
    assert counted(tmp_path) == [*(f"job {number}" for number in range(1, 6)), "after"]


def test_a_job_of_a_lost_node_goes_on_at_another(cluster: SlurmCluster, tmp_path: Path) -> None:
    step = counting(tmp_path, "job", 8)
    run = Run(tmp_path, fake(tmp_path, "after", after=(step,)))
    wait_until(lambda: len(numbers(tmp_path, "job")) >= 2)
    ((node,),) = [fields for fields in cluster.queue("%N") if fields[0]]
    cluster.kill(node)
    outcomes = run.end(120)
    assert {status for status, _ in outcomes.values()} == {"done"}
    log = (tmp_path / "cells/job/log.txt").read_text()
    assert re.findall(r"^on (n\d)", log, re.MULTILINE) == [node, "n2" if node == "n1" else "n1"]
    assert sorted(set(numbers(tmp_path, "job"))) == list(range(1, 9))
    assert len(numbers(tmp_path, "job")) <= 9, "it went on from its checkpoint"


def test_a_controller_that_is_away_for_a_while_changes_nothing(cluster: SlurmCluster, tmp_path: Path) -> None:
    first = counting(tmp_path, "first", 4)
    run = Run(tmp_path, counting(tmp_path, "second", 2, after=(first,)))
    wait_until(lambda: numbers(tmp_path, "first"))
    cluster.stop_controller()
    wait_until(lambda: len(numbers(tmp_path, "first")) == 4)
    time.sleep(2)  # first has ended while nobody could be told
    assert run.process.poll() is None
    cluster.start_controller()
    assert {status for status, _ in run.end(90).values()} == {"done"}
    assert counted(tmp_path) == [*(f"first {number}" for number in range(1, 5)), "second 1", "second 2"]


def test_ctrl_c_ends_running_jobs_at_a_checkpoint_and_empties_the_queue(cluster: SlurmCluster, tmp_path: Path) -> None:
    first = counting(tmp_path, "first", 60, 1.0)
    last = fake(tmp_path, "last", after=(first,))
    run = Run(tmp_path, last)
    wait_until(lambda: numbers(tmp_path, "first"))
    run.interrupt()
    run.interrupted()
    assert not {"PENDING", "RUNNING"} & set(states(cluster))
    done = len(numbers(tmp_path, "first"))
    assert (tmp_path / "cells/first/checkpoint").read_text() == str(done)
    assert done < 20
    first = counting(tmp_path, "first", 60, 0.01)
    outcomes = Run(tmp_path, fake(tmp_path, "last", after=(first,))).end()
    assert {status for status, _ in outcomes.values()} == {"done"}
    assert numbers(tmp_path, "first") == list(range(1, 61)), "it went on from its checkpoint"


def test_ctrl_c_twice_ends_all_now(cluster: SlurmCluster, tmp_path: Path) -> None:
    first = counting(tmp_path, "first", 2, 60.0)  # its next checkpoint is a minute away
    run = Run(tmp_path, fake(tmp_path, "last", after=(first,)))
    log = tmp_path / "cells/first/log.txt"
    wait_until(lambda: log.exists() and "on n" in log.read_text())
    run.interrupt()
    time.sleep(3)
    assert run.process.poll() is None
    assert "RUNNING" in states(cluster)
    run.interrupt()
    run.interrupted(20)
    wait_until(lambda: set(states(cluster)) == {"CANCELLED"}, 30)
    assert counted(tmp_path) == []


@pytest.mark.slow  # Slurm counts time limits in minutes
def test_a_job_whose_time_is_nearly_over_writes_a_checkpoint_and_goes_on(cluster: SlurmCluster, tmp_path: Path) -> None:
    step = counting(tmp_path, "job", 50, 1.0)
    recorder = Recorder()
    outcomes = execute(tmp_path, fake(tmp_path, "after", after=(step,)), recorder=recorder, time=1, signal_seconds=40)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert ("again", "job") in recorder.events
    assert numbers(tmp_path, "job") == list(range(1, 51))
    assert int(re.search(r"Restarts=(\d+)", cluster.run("scontrol", "show", "job", "1"))[1]) >= 1


def test_a_job_that_somebody_cancels_has_failed_and_says_so(cluster: SlurmCluster, tmp_path: Path) -> None:
    run = Run(tmp_path, counting(tmp_path, "job", 50, 1.0), counting(tmp_path, "other", 3))
    wait_until(lambda: numbers(tmp_path, "job"))
    cluster.run("scancel", "1_0")
    outcomes = run.end()
    assert outcomes["other"][0] == "done"
    assert outcomes["job"] == ["failed", "cancelled in Slurm (job 1_0); fix: the same command submits it again"]


def test_a_job_that_is_to_do_something_else_now_is_submitted_anew(cluster: SlurmCluster, tmp_path: Path) -> None:
    run = Run(tmp_path, counting(tmp_path, "job", 50, 1.0))
    wait_until(lambda: numbers(tmp_path, "job"))
    run.kill()
    outcomes = execute(tmp_path, counting(tmp_path, "job", 2, 0.1))
    assert outcomes["job"].status == "done"
    assert (tmp_path / "cells/job/product").read_text() == "counted to 2"
    assert sorted(states(cluster)) == ["CANCELLED", "COMPLETED"]

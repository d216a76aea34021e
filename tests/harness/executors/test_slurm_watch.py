"""When a job in Slurm has ended, and how: from files that may be late, a queue that forgets, and what the job has made."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from harness.costs.resources import GIGABYTE, Resources
from harness.executors._slurm_commands import Queued, _minutes
from harness.executors._slurm_options import Most, Options
from harness.executors._slurm_watch import Watched
from harness.runs.job_spec import DONE, FAILED, MAY_PASS, STOPPED
from harness.runs.store import Store
from harness.scheduling.executor import Ended
from helpers.executor_runs import fake, planned

LATE = 60.0


def watched(root: Path, state: str | None = "RUNNING", reason: str = "None") -> Watched:
    (job,) = planned(root, fake(root, "job"))
    folder = root / ".harness/slurm/token"
    folder.mkdir(parents=True, exist_ok=True)
    queued = None if state is None else Queued("7", state, reason, "n1", "token")
    return Watched(job, folder, 0, "7", queued)


def write_state(job: Watched, **fields: Any) -> None:
    (job.folder / "0.state.json").write_text(json.dumps(fields))


def end(job: Watched, now: float, *, answered: bool = True) -> Ended | None:
    return job.end(job.state(), answered=answered, now=now, settle=5.0, late=LATE)


def test_a_final_end_counts_whatever_the_queue_says(tmp_path: Path) -> None:
    for queue_says in ("RUNNING", "PENDING", None):
        job = watched(tmp_path, queue_says)
        write_state(job, state="ended", code=0, final=True, seconds=3.0)
        assert end(job, 0.0, answered=False) == Ended("job", DONE, seconds=3.0)


def test_a_queue_that_does_not_answer_ends_nothing(tmp_path: Path) -> None:
    job = watched(tmp_path, None)
    assert all(end(job, now, answered=False) is None for now in (0.0, 1e6))


def test_files_may_be_late_before_a_job_counts_as_lost(tmp_path: Path) -> None:
    job = watched(tmp_path, None)
    assert end(job, 100.0) is None
    assert end(job, 100.0 + LATE - 1) is None
    lost = end(job, 100.0 + LATE)
    assert lost is not None
    assert (lost.code, lost.retry) == (MAY_PASS, True)
    assert "Slurm does not know it any more" in lost.reason


def test_one_that_is_back_in_the_queue_has_not_ended(tmp_path: Path) -> None:
    job = watched(tmp_path, "NODE_FAIL")
    write_state(job, state="running")
    assert end(job, 0.0) is None
    job.queued = Queued("7", "PENDING", "BeginTime", "", "token")
    assert end(job, 30.0) is None
    job.queued = Queued("7", "NODE_FAIL", "None", "", "token")
    assert end(job, LATE + 1) is None, "the time counts from anew"
    found = end(job, 2 * LATE + 1)
    assert found is not None
    assert found.retry


def test_what_was_made_counts_where_slurm_has_forgotten_the_job(tmp_path: Path) -> None:
    job = watched(tmp_path, None)
    (output,) = job.job.wanted
    folder = Store(tmp_path).output(output.folder)
    folder.begin("fake", "job", output.fingerprint)
    (folder.path / "product").write_text("made")
    folder.finish(1.0)
    end(job, 0.0)
    assert end(job, LATE) == Ended("job", DONE)
    job.job.fresh = True
    made_again = end(job, LATE)
    assert made_again is not None
    assert made_again.code == MAY_PASS, "an old result says nothing of one that is made again"


@pytest.mark.parametrize(
    ("state", "code", "retry", "said"),
    [
        ("TIMEOUT", -signal.SIGTERM, True, "its time in Slurm was over"),
        ("OUT_OF_MEMORY", -signal.SIGKILL, False, "`resources: {fake: {memory: ...}}`"),
        ("PREEMPTED", -signal.SIGTERM, True, "another job took its place"),
        ("CANCELLED", -signal.SIGTERM, False, "cancelled in Slurm (job 7)"),
        ("COMPLETED", MAY_PASS, True, "Slurm says COMPLETED, and it left no result"),
    ],
)
def test_the_state_in_slurm_says_why_where_nothing_else_does(
    tmp_path: Path, state: str, code: int, retry: bool, said: str
) -> None:
    job = watched(tmp_path, state)
    write_state(job, state="running")
    assert end(job, 0.0) is None
    found = end(job, LATE)
    assert found is not None
    assert (found.code, found.retry) == (code, retry)
    assert said in found.reason


def test_a_script_that_fails_before_the_job_says_its_last_line(tmp_path: Path) -> None:
    job = watched(tmp_path, "FAILED")
    (job.folder / "0.out").write_text("module: cuda is not known\n")
    end(job, 0.0)
    found = end(job, LATE)
    assert found is not None
    assert (found.code, found.retry) == (FAILED, False)
    assert found.reason.endswith("module: cuda is not known")


def test_a_stop_at_a_checkpoint_ends_the_try_only_when_slurm_does_not_start_it_again(tmp_path: Path) -> None:
    job = watched(tmp_path, "COMPLETING")
    write_state(job, state="ended", code=STOPPED, final=False)
    assert end(job, 0.0) is None
    job.queued = Queued("7", "FAILED", "NonZeroExitCode", "n1", "token")
    assert end(job, 1.0) is None, "what is put back may look so for a moment"
    found = end(job, 6.0)
    assert found is not None
    assert found.code == STOPPED


def test_what_is_taken_out_of_the_queue_before_it_began_has_ended_at_once(tmp_path: Path) -> None:
    job = watched(tmp_path, "CANCELLED")
    job.asked = "checkpoint"
    assert end(job, 0.0) == Ended("job", -signal.SIGTERM, "taken out of the queue")


def test_one_that_slurm_holds_because_it_could_not_start_it_is_tried_again(tmp_path: Path) -> None:
    job = watched(tmp_path, "PENDING", "launch failed requeued held")
    assert end(job, 0.0) is None
    found = end(job, LATE)
    assert found is not None
    assert found.retry
    assert found.reason == "Slurm holds it back: launch failed requeued held"


def test_what_a_job_says_of_itself_is_passed_on_once(tmp_path: Path) -> None:
    job = watched(tmp_path)
    write_state(job, state="running", host="node7")
    said = tmp_path / ".harness/jobs/job/state.json"
    said.parent.mkdir(parents=True)
    said.write_text(
        json.dumps(
            {"job": "job", "state": "running", "stage": "training", "done": 3, "total": 9, "metrics": {"loss": 2.5}}
        )
    )
    events = [message.event for message in job.news(job.state())]
    assert events == [
        {"event": "started", "host": "node7", "slurm": "7"},
        {"event": "progress", "stage": "training", "done": 3, "total": 9},
        {"event": "metrics", "metrics": {"loss": 2.5}},
    ]
    assert list(job.news(job.state())) == []
    job.queued = Queued("7", "PENDING", "Priority", "", "token")
    assert [message.event["event"] for message in job.news(job.state())] == ["queued"]


def test_what_a_job_asks_of_slurm() -> None:
    most = Most(partition="gpu", minutes=600, cpus=32, memory=100_000, gpus=8)
    usual = Options().of_job(Resources(memory=GIGABYTE), 1, most)
    assert usual == ("--cpus-per-task=1", "--mem=1193")
    large = Resources(cpus=8, gpus=4, memory=90 * GIGABYTE, minutes=400)
    assert Options(gpu_type="a100").of_job(large, 1, most) == (
        "--cpus-per-task=8",
        "--gres=gpu:a100:4",
        "--mem=100000",  # with its margin it would not fit
        "--time=600",  # twice the estimate is more than the partition gives
    )
    assert Options(gpus_as="gpus", memory="cpu", time=30).of_job(large, 1, most)[1:] == (
        "--gpus=4",
        "--mem-per-cpu=12500",
        "--time=30",
    )
    share = Resources(gpus=0.25, memory=GIGABYTE)
    assert "--gres=gpu:1" in Options().of_job(share, 1, most)
    assert "--gres=shard:2" in Options(shards=8).of_job(share, 1, most)
    without = Most(partition="cpu", gpus=0)
    assert not any("gres" in each for each in Options().of_job(share, 1, without)), "estimated GPUs are left out"
    required = share.replaced(gpus_required=True)
    assert "--gres=gpu:1" in Options().of_job(required, 1, without)


def test_times_as_sinfo_writes_them() -> None:
    assert [_minutes(text) for text in ("infinite", "30:00", "2:00:00", "1-00:00:00", "n/a")] == [
        None,
        30,
        120,
        1440,
        None,
    ]

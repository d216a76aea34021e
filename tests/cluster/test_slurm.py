"""The Slurm executor on a real Slurm: order, arrays, resources, failures, limits."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.costs.resources import GIGABYTE
from harness.executors.slurm import Executor
from harness.scheduling.executor import Settings
from harness.scheduling.outcome import Outcome
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder, fake, planned
from helpers.slurm_cluster import SlurmCluster
from helpers.slurm_runs import QUICK, counted, counting, execute

pytestmark = pytest.mark.cluster


def book(root: Path) -> dict[str, dict[str, str]]:
    return json.loads((root / ".harness/slurm/jobs.json").read_text())["jobs"]


def test_a_matrix_is_handed_over_at_once_in_arrays_and_runs_in_order(cluster: SlurmCluster, tmp_path: Path) -> None:
    first = fake(tmp_path, "first")
    middle = [fake(tmp_path, f"middle{k}", after=(first,)) for k in range(3)]
    recorder = Recorder()
    outcomes = execute(tmp_path, fake(tmp_path, "last", after=tuple(middle)), recorder=recorder)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert (tmp_path / "journal").read_text().split()[0] == "first"
    assert (tmp_path / "journal").read_text().split()[-1] == "last"
    starts = [name for event, name in recorder.events if event == "start"]
    assert starts == ["first", "middle0", "middle1", "middle2", "last"]
    assert recorder.events[:5] == [("start", name) for name in starts]  # all before anything ended
    ids = {name: entry["slurm"] for name, entry in book(tmp_path).items()}
    assert len({ids[f"middle{k}"].split("_")[0] for k in range(3)}) == 1
    assert [ids[f"middle{k}"].split("_")[1] for k in range(3)] == ["0", "1", "2"]
    assert "_" not in ids["first"]
    for name in starts:
        assert "doing ok" in (tmp_path / "cells" / name / "log.txt").read_text()
    assert len(cluster.queue()) == 5


def test_what_fails_for_good_is_told_with_its_reason_and_what_needs_it_never_runs(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    bad, mistake = fake(tmp_path, "bad", "fail"), fake(tmp_path, "mistake", "input error")
    child = fake(tmp_path, "child", after=(bad,))
    outcomes = execute(tmp_path, fake(tmp_path, "grandchild", after=(child,)), mistake, fake(tmp_path, "other"))
    assert outcomes["bad"].status == "failed"
    assert outcomes["bad"].reason == "RuntimeError: the reason (3 tries)"
    assert outcomes["mistake"].reason == "data.jsonl:3: is broken; mend it"
    assert outcomes["other"].status == "done"
    for name in ("child", "grandchild"):
        assert outcomes[name] == Outcome("not_run", "needs 'job bad', which failed")
    assert sorted((tmp_path / "journal").read_text().split()) == ["bad", "bad", "bad", "mistake", "other"]


def test_a_job_that_dies_goes_back_into_the_queue_and_goes_on_from_what_it_left(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    recorder = Recorder()
    fragile = fake(tmp_path, "fragile", "kill itself once")
    outcomes = execute(tmp_path, fake(tmp_path, "after", after=(fragile,)), recorder=recorder)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert (tmp_path / "cells/fragile/product").read_text() == "kept"
    assert (tmp_path / "journal").read_text().split() == ["fragile", "fragile", "after"]
    assert ("again", "fragile") in recorder.events
    assert cluster.queue("%i|%T|%r")[-1][1] == "COMPLETED"


def test_one_that_always_dies_is_tried_as_often_as_it_may_be(cluster: SlurmCluster, tmp_path: Path) -> None:
    step = fake(tmp_path, "hopeless", "kill itself always")
    made = Executor(Settings(tmp_path, tries=2, options=Executor.Options(**QUICK)))
    outcomes = Runner(made, Recorder(), delay=0.1, tries=2).run(planned(tmp_path, step))
    assert outcomes["hopeless"].status == "failed"
    assert outcomes["hopeless"].reason.startswith("ended by SIGKILL")
    assert outcomes["hopeless"].reason.endswith("(2 tries)")
    assert (tmp_path / "journal").read_text().split() == ["hopeless"] * 2


def test_a_job_gets_the_cores_gpus_and_memory_that_it_needs(cluster: SlurmCluster, tmp_path: Path) -> None:
    jobs = planned(tmp_path, *(counting(tmp_path, name, 1, 0.1) for name in ("large", "shared", "plain")))
    needs = {
        "large": {"cpus": 2, "gpus": 2.0, "gpus_required": True, "memory": 2 * GIGABYTE, "minutes": 20.0},
        "shared": {"gpus": 0.25, "gpus_required": True},
        "plain": {},
    }
    for job in jobs:
        job.resources = job.resources.replaced(**needs[job.id])
    options = Executor.Options(**QUICK, memory_margin=1.0, sbatch=("--nice=7",))
    executor = Executor(Settings(tmp_path, options=options))
    executor.check(jobs)
    outcomes = Runner(executor, Recorder()).run(jobs)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    shown = {
        name: cluster.run("scontrol", "show", "job", entry["slurm"], "-d") for name, entry in book(tmp_path).items()
    }
    assert re.search(r"cpu=2,mem=1908M", shown["large"])
    assert re.search(r"TresPerNode=gres:gpu:2", shown["large"])
    assert "TimeLimit=00:40:00" in shown["large"]
    assert re.search(r"TresPerNode=gres:gpu:1", shown["shared"])
    assert "gres" not in shown["plain"]
    assert "Nice=7" in shown["plain"]
    logs = {name: (tmp_path / "cells" / name / "log.txt").read_text() for name in needs}
    assert "devices 0,1, threads 2" in logs["large"]
    assert re.search(r"devices [01], threads 1", logs["shared"])
    assert re.search(r"devices (None|NoDevFiles)?, threads 1", logs["plain"])


def test_no_more_jobs_are_in_the_queue_than_it_takes(cluster: SlurmCluster, tmp_path: Path) -> None:
    most = []
    recorder = Recorder()
    recorder.tick = lambda: most.append(sum(state in {"PENDING", "RUNNING"} for _, state in cluster.queue("%i|%T")))
    first = counting(tmp_path, "first", 1, 0.2)
    steps = [counting(tmp_path, f"more{k}", 1, 0.2, after=(first,)) for k in range(4)]
    outcomes = execute(tmp_path, *steps, recorder=recorder, max_submitted=2)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert len(counted(tmp_path)) == 5
    assert max(most) == 2


def test_no_more_jobs_run_at_once_than_asked_for(cluster: SlurmCluster, tmp_path: Path) -> None:
    most = []
    recorder = Recorder()
    recorder.tick = lambda: most.append(sum(state == "RUNNING" for _, state in cluster.queue("%i|%T")))
    outcomes = execute(tmp_path, *(counting(tmp_path, f"c{k}", 1, 0.5) for k in range(5)), recorder=recorder, jobs=2)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}
    assert max(most) == 2


def test_lines_of_setup_run_before_the_job_and_fail_it_where_one_fails(cluster: SlurmCluster, tmp_path: Path) -> None:
    assert execute(tmp_path, fake(tmp_path, "good"), setup=("export OMP_NUM_THREADS=3",))["good"].status == "done"
    assert "OMP_NUM_THREADS=3" in (tmp_path / "cells/good/log.txt").read_text()
    outcome = execute(tmp_path, fake(tmp_path, "bad"), setup=("echo no such module: cuda", "false"))["bad"]
    assert outcome.status == "failed"
    assert "failed before the job began" in outcome.reason
    assert outcome.reason.endswith("no such module: cuda")


def test_detached_it_hands_all_over_and_leaves(
    cluster: SlurmCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = fake(tmp_path, "first")
    last = fake(tmp_path, "last", after=(first,))
    assert execute(tmp_path, last, detach=True) == {}
    assert "2 jobs are in Slurm's queue" in capsys.readouterr().err
    assert {outcome.status for outcome in execute(tmp_path, last).values()} == {"done"}
    assert (tmp_path / "journal").read_text().split() == ["first", "last"]
    assert len(cluster.queue()) == 2


@pytest.mark.parametrize(
    ("options", "needs", "said"),
    [
        ({"partition": "mian"}, {}, "--executor-option partition=mian: no such partition; did you mean 'main'?"),
        ({"partition": "one", "time": 60}, {}, "needs 60 minutes, and its limit is 5 (partition one)"),
        ({}, {"memory": 20 * GIGABYTE}, "needs 20.0 GB of memory on one node, which has 8.4"),
        ({}, {"gpus": 4.0, "gpus_required": True}, "needs 4 GPUs on one node, which has 2"),
        ({}, {"cpus": 3}, "needs 3 cores on one node, which has 2"),
        ({"constraint": "a100"}, {}, "Invalid feature specification"),
        ({"time": 2}, {}, "no time is left before the signal 120 s before its end"),
        ({"sbatch": ("--nonsense",)}, {}, "unrecognized option '--nonsense'"),
    ],
)
def test_what_can_never_run_is_said_in_one_line_before_anything_is_written(
    cluster: SlurmCluster, tmp_path: Path, options: dict[str, object], needs: dict[str, object], said: str
) -> None:
    (job,) = planned(tmp_path, fake(tmp_path, "one"))
    job.resources = job.resources.replaced(**needs)
    with pytest.raises(InputError) as error:
        Executor(Settings(tmp_path, options=Executor.Options(**options))).check([job])
    assert said in str(error.value)
    assert "; fix: " in str(error.value) or "did you mean" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert cluster.queue() == []


def test_without_slurm_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    jobs = planned(tmp_path, fake(tmp_path, "one"))
    with pytest.raises(InputError, match=r"sbatch is not found; fix: .*PATH"):
        Executor(Settings(tmp_path)).check(jobs)


def test_the_process_on_the_node_knows_the_codes_and_names_of_a_job() -> None:
    from harness.executors import _slurm_task
    from harness.runs import job_spec

    for name in ("DONE", "MAY_PASS", "STOPPED", "PROGRESS_DESCRIPTOR", "PARENT_DESCRIPTOR"):
        assert getattr(_slurm_task, name) == getattr(job_spec, name)


def test_a_slurm_that_is_not_there_when_the_run_begins_is_told_in_one_line(
    cluster: SlurmCluster, tmp_path: Path
) -> None:
    cluster.stop_controller()
    with pytest.raises(InputError, match="--executor slurm: Slurm does not answer"):
        execute(tmp_path, fake(tmp_path, "one"))
    assert list(tmp_path.iterdir()) == []

"""The Ray executor on a real cluster of several nodes, all of them on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from dskd.errors import InputError
from harness.costs.resources import Resources
from harness.executors import local
from harness.executors.ray import Executor, Options
from harness.planning.plan import PlannedJob, make_plan
from harness.scheduling.executor import BaseExecutor, Settings
from harness.scheduling.outcome import Outcome
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder, fake, planned
from helpers.killed_runs import outcome_of, start
from helpers.paths import PYTHONPATH
from helpers.tiny_matrix import NEW_MODEL, training

pytest.importorskip("ray")
pytestmark = pytest.mark.cluster

_STORE = 80 * 2**20  # bytes, the least that Ray allows


class Nodes:
    """A cluster: a head without GPUs, and nodes that come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": _STORE, "include_dashboard": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address = self._cluster.address

    def add(self, **resources: Any) -> Any:
        """A node with these resources."""
        node = self._cluster.add_node(object_store_memory=_STORE, **resources)
        self._cluster.wait_for_nodes()
        return node

    def remove(self, node: Any) -> None:
        """A node is lost: its processes are killed."""
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_head(self) -> None:
        """The head is lost."""
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)

    def of(self, pid: int) -> int:
        """The process of the node, its raylet, that a process runs on."""
        return next(each.pid for each in psutil.Process(pid).parents() if each.name() == "raylet")

    def shutdown(self) -> None:
        self._cluster.shutdown()


def raylet(node: Any) -> int:
    return node.all_processes["raylet"][0].process.pid


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    cluster = Nodes()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="module")
def gpu_node(nodes: Nodes) -> Any:
    """A node with two made-up GPUs, which stays."""
    return nodes.add(num_cpus=1, num_gpus=2, resources={"fast_disk": 1})


@pytest.fixture(autouse=True)
def fake_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.setenv("OMP_NUM_THREADS", "")


class Watcher(Recorder):
    """Remembers why jobs were tried again, and tells of those that are done."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []
        self.on_done: Callable[[str], None] = lambda _key: None

    def again(self, job: PlannedJob, reason: str, number: int, seconds: float) -> None:
        self.reasons.append(reason)

    def ended(self, job: PlannedJob, outcome: Outcome) -> None:
        self.on_done(job.id)


def on_ray(root: Path, nodes: Nodes, **options: Any) -> Executor:
    return Executor(Settings(root, options=Options(address=nodes.address, **options)))


def execute(executor: BaseExecutor, jobs: list[Any], tries: int = 1) -> dict[str, Outcome]:
    executor.check(jobs)
    return Runner(executor, Recorder(), tries=tries, delay=0.1).run(jobs)


def wait_for(path: Path, seconds: float = 60) -> str:
    until(lambda: path.exists() and path.read_text(), seconds, str(path))
    return path.read_text()


def until(condition: Callable[[], object], seconds: float = 60, what: str = "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_run(root: Path, nodes: Nodes, *names: str, **environment: str) -> subprocess.Popen[str]:
    """A run in a process of its own (helpers.ray_run)."""
    return subprocess.Popen(
        [sys.executable, "-m", "helpers.ray_run", str(root), nodes.address, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def visible(root: Path, name: str) -> str:
    """The GPUs that a job saw."""
    (line,) = [line for line in (root / f"cells/{name}/log.txt").read_text().splitlines() if "CUDA" in line]
    return line.rpartition("CUDA_VISIBLE_DEVICES=")[2]


def test_jobs_get_their_gpus_on_one_node_and_those_without_see_none(
    nodes: Nodes, gpu_node: Any, tmp_path: Path
) -> None:
    names = {"two": 2.0, "half": 0.5, "none": 0.0}
    jobs = planned(tmp_path, *(fake(tmp_path, name, "tell GPUs") for name in names))
    for job in jobs:
        job.resources = Resources(gpus=names[job.id], gpus_required=True)
    outcomes = execute(on_ray(tmp_path, nodes), jobs)
    assert {key: outcome.status for key, outcome in outcomes.items()} == dict.fromkeys(names, "done")
    assert visible(tmp_path, "two") == "0,1"
    assert visible(tmp_path, "half") in {"0", "1"}
    assert visible(tmp_path, "none") == ""
    threads = {name: (tmp_path / f"cells/{name}/log.txt").read_text().split("OMP_NUM_THREADS=")[1][0] for name in names}
    assert threads == {"two": "2", "half": "1", "none": "1"}  # as on one machine, whatever a node has
    assert (tmp_path / ".harness/leases").is_dir()


@pytest.mark.parametrize(
    ("gpus", "options", "problem"),
    [
        (3.0, {}, r"no node has 3 GPU \(the most is 2\), which 'job big' needs; fix: add such a node"),
        (0.0, {"resources": {"tpu": 1}}, r"no node has 1 tpu \(the most is 0\)"),
    ],
)
def test_what_no_node_has_is_refused_before_anything_is_written(
    nodes: Nodes, gpu_node: Any, tmp_path: Path, gpus: float, options: dict[str, Any], problem: str
) -> None:
    jobs = planned(tmp_path, fake(tmp_path, "big"))
    jobs[0].resources = Resources(gpus=gpus, gpus_required=gpus > 0)
    executor = on_ray(tmp_path, nodes, **options)
    with pytest.raises(InputError, match=problem):
        executor.check(jobs)
    executor.close()
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_is_not_there_is_told_with_the_fix(tmp_path: Path) -> None:
    executor = Executor(Settings(tmp_path, options=Options(address="127.0.0.1:1", timeout=8)))
    with pytest.raises(InputError, match=r"address=127.0.0.1:1: not reached in 8 s .*; fix: start a cluster"):
        executor.check(planned(tmp_path, fake(tmp_path, "first")))
    executor.close()
    assert list(tmp_path.iterdir()) == []


def test_what_fails_is_tried_again_only_where_that_may_help(nodes: Nodes, tmp_path: Path) -> None:
    does = {"bad": "fail", "mistake": "input error", "fragile": "kill itself once"}
    steps = [fake(tmp_path, name, do) for name, do in does.items()]
    outcomes = execute(on_ray(tmp_path, nodes), planned(tmp_path, *steps), tries=3)
    assert outcomes["bad"].reason == "RuntimeError: the reason (3 tries)"
    assert outcomes["fragile"].status == "done"
    assert (tmp_path / "cells/fragile/product").read_text() == "kept"
    assert outcomes["mistake"].reason == "data.jsonl:3: is broken; mend it"
    assert sorted((tmp_path / "journal").read_text().split()) == [*["bad"] * 3, "fragile", "fragile", "mistake"]


def test_a_job_whose_node_is_lost_goes_on_on_another_and_that_is_no_failed_try(nodes: Nodes, tmp_path: Path) -> None:
    lost = nodes.add(num_cpus=1, resources={"here": 1})
    step = fake(tmp_path, "long", "wait", until=tmp_path / "go")
    part = tmp_path / "cells/long/part"
    recorder = Watcher()

    def remove() -> None:
        if not (tmp_path / "go").exists() and part.exists() and part.read_text():
            first = int(part.read_text())
            assert nodes.of(first) == raylet(lost)
            other = nodes.add(num_cpus=1, resources={"here": 1})
            nodes.remove(lost)
            until(lambda: gone(first))
            (tmp_path / "go").touch()
            assert raylet(other)

    recorder.tick = remove
    runner = Runner(on_ray(tmp_path, nodes, resources={"here": 1}), recorder, tries=1)
    outcomes = runner.run(planned(tmp_path, step))
    assert outcomes["long"].status == "done", outcomes
    assert [reason.partition(" that it ran on is gone")[1] for reason in recorder.reasons] == [
        " that it ran on is gone"
    ]
    assert (tmp_path / "journal").read_text().split() == ["long", "long"]


@pytest.mark.parametrize(("times", "do", "product"), [(1, "stop at a checkpoint", "kept"), (2, "wait", "")])
def test_ctrl_c_ends_running_jobs_at_a_checkpoint_or_now_and_the_cluster_stays(
    nodes: Nodes, tmp_path: Path, times: int, do: str, product: str
) -> None:
    run = start_run(tmp_path, nodes, f"first={do}", "second")
    job = int(wait_for(tmp_path / "cells/first/part"))
    for request in range(times):
        run.send_signal(signal.SIGINT)
        time.sleep(3)
        assert gone(job) or request < times - 1
    assert run.wait(60) == 130
    assert gone(job)
    assert not (tmp_path / "cells/second").exists()
    for name in ("first", "second"):
        (tmp_path / f"go-{name}").touch()
    stdout, stderr = start_run(tmp_path, nodes, f"first={do}", "second").communicate(timeout=120)
    assert json.loads(stdout) == {"first": "done", "second": "done"}, stderr
    assert product in (tmp_path / "cells/first/product").read_text()


def test_a_harness_that_is_killed_takes_its_jobs_with_it(nodes: Nodes, tmp_path: Path) -> None:
    run = start_run(tmp_path, nodes, "first")
    job = int(wait_for(tmp_path / "cells/first/part"))
    run.kill()
    run.wait()
    until(lambda: gone(job), 30, "its job is still there")
    (tmp_path / "go-first").touch()
    stdout, stderr = start_run(tmp_path, nodes, "first").communicate(timeout=120)
    assert json.loads(stdout) == {"first": "done"}, stderr


def test_a_cluster_whose_head_is_lost_ends_the_run_in_one_line_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    cluster = Nodes()
    again = None
    try:
        (tmp_path / "go-first").touch()
        run = start_run(tmp_path, cluster, "first", "second", RAY_gcs_rpc_server_reconnect_timeout_s="5")
        job = int(wait_for(tmp_path / "cells/second/part", 90))
        cluster.kill_head()
        _, stderr = run.communicate(timeout=120)
        assert run.returncode == 1
        (line,) = stderr.splitlines()
        assert line.startswith(f"error: the Ray cluster {cluster.address} is gone (")
        assert line.endswith("what is finished is kept; fix: start the cluster, and run the same command again")
        until(lambda: gone(job), 60, "its job is still there")
        (tmp_path / "go-second").touch()
        again = Nodes()
        stdout, stderr = start_run(tmp_path, again, "first", "second").communicate(timeout=120)
        assert json.loads(stdout) == {"first": "done", "second": "done"}, stderr
        assert (tmp_path / "journal").read_text().split() == ["first", "first", "second", "second"][1:]
    finally:
        cluster.shutdown()
        if again is not None:
            again.shutdown()


def test_a_cluster_of_its_own_ends_with_the_run(tmp_path: Path) -> None:
    before = {each.pid for each in psutil.process_iter() if each.name() in ("raylet", "gcs_server")}
    jobs = planned(tmp_path, fake(tmp_path, "first"))
    outcomes = execute(Executor(Settings(tmp_path, gpus=0)), jobs)
    assert outcomes["first"].status == "done"
    after = {each.pid for each in psutil.process_iter() if each.name() in ("raylet", "gcs_server")}
    assert after <= before


TRAINING = training(2)
TINY = {
    "schema_version": 1,
    "name": "tiny",
    "data": {"student": {"small_world": "student", "limit": 24}},
    "models": {"teacher": {**NEW_MODEL, "training": [TRAINING]}, "same": NEW_MODEL},
    "pairs": [{"teacher": "teacher", "student": "same", "methods": ["sft", "kd"]}],
    "training": TRAINING,
    "seeds": [1],
    "tasks": {"small_math": {"limit": 2, "max_new_tokens": 4}},
    "evaluation": {"engine": "transformers"},
}


@pytest.mark.slow
def test_a_matrix_gives_the_same_bytes_as_on_this_machine_although_a_node_is_lost(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    with contextlib.chdir(tmp_path):
        roots = {name: Path(name) for name in ("local", "ray")}
        plans = {name: make_plan("tiny.yaml", output_dir=root) for name, root in roots.items()}
        here = Runner(local.Executor(Settings(roots["local"])), Recorder(), jobs=2).run(plans["local"].to_run)
        assert {each.status for each in here.values()} == {"done"}
        lost, recorder = nodes.add(num_cpus=1), Watcher()
        ended: list[str] = []

        def lose(key: str) -> None:
            ended.append(key)
            if len(ended) == len(plans["ray"].to_run) // 2:
                nodes.remove(lost)

        recorder.on_done = lose
        there = Runner(on_ray(roots["ray"], nodes), recorder).run(plans["ray"].to_run)
        assert {each.status for each in there.values()} == {"done"}
        first, second = outcome_of(roots["local"]), outcome_of(roots["ray"])
    assert any(name.endswith("model.safetensors") for name in first)
    assert first == second


def test_the_command_of_the_docs_gives_what_it_gives_without_ray(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"pairs": [TINY["pairs"][0] | {"methods": ["sft"]}]}))
    for name, options in (("local", []), ("ray", ["--executor", "ray"])):
        run = start(["run", "--matrix", "tiny.yaml", "--output-dir", name, *options], tmp_path)
        assert run.wait(500) == 0, (tmp_path / "printed.txt").read_text()[-3000:]
    assert outcome_of(tmp_path / "local") == outcome_of(tmp_path / "ray")
    jobs = [json.loads(path.read_text()) for path in tmp_path.glob("ray/.harness/jobs/*/state.json")]
    assert jobs
    assert {job["state"] for job in jobs} == {"done"}

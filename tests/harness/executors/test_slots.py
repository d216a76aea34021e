"""The slots of this machine: GPUs by name, cores and memory within control groups; real jobs on GPUs that are only counted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from dskd.errors import InputError
from harness.costs.resources import Resources
from harness.executors import local
from harness.executors._gpus import Gpus, Machine, gpus_of
from harness.executors.local import Executor
from harness.planning.plan import PlannedJob
from harness.runs import machine
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder
from helpers.paths import PYTHONPATH
from helpers.told_jobs import most_at_once, said, told

SMI = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5fd4f087-86f3-7a43-b711-4771313afc50)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-d8de5aa1-0d4e-fb38-b2a2-3cd6a8d1d1ab)
"""
MIG = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5fd4f087-86f3-7a43-b711-4771313afc50)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736-a75d-5afc-978f-d2f1294409fd)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-d8de5aa1-0d4e-fb38-b2a2-3cd6a8d1d1ab)
"""


def nvidia(folder: Path, listed: str | None, devices: int = 0) -> Machine:
    for number in range(devices):
        (folder / f"nvidia{number}").touch()
    return Machine(devices=folder, kfd=folder, nvidia_smi=lambda: listed, apple=False)


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        (None, ("0", "1")),
        ("1", ("1",)),
        ("1,0", ("1", "0")),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", ("0",)),
        ("0,7", ("0",)),
        ("0,0", ("0",)),
        ("GPU-5fd4f087-86f3-7a43-b711-4771313afc50", ("GPU-5fd4f087-86f3-7a43-b711-4771313afc50",)),
        ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd", ("MIG-c7384736-a75d-5afc-978f-d2f1294409fd",)),
        ("MIG-GPU-5fd4f087-86f3/3/0,1", ("MIG-GPU-5fd4f087-86f3/3/0", "1")),
        ("NoDevFiles", ()),
    ],
)
def test_the_gpus_are_those_that_this_process_was_given(
    tmp_path: Path, variable: str | None, names: tuple[str, ...]
) -> None:
    environment = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert gpus_of(environment, machine=nvidia(tmp_path, SMI)) == Gpus(names, "CUDA_VISIBLE_DEVICES")


def test_a_gpu_that_is_cut_is_its_instances(tmp_path: Path) -> None:
    found = gpus_of({}, machine=nvidia(tmp_path, MIG))
    assert found.names == (
        "MIG-c7384736-a75d-5afc-978f-d2f1294409fd",
        "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d",
        "1",
    )
    assert found.environment([1, 2]) == {"CUDA_VISIBLE_DEVICES": "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d,1"}
    assert found.environment([]) == {"CUDA_VISIBLE_DEVICES": ""}


def test_without_nvidia_smi_the_device_files_count_and_a_variable_alone_makes_no_gpu(tmp_path: Path) -> None:
    assert gpus_of({}, machine=nvidia(tmp_path, None, devices=3)).names == ("0", "1", "2")
    (tmp_path / "bare").mkdir()
    assert gpus_of({"CUDA_VISIBLE_DEVICES": "0"}, machine=nvidia(tmp_path / "bare", None)) == Gpus()


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, ("0", "1")),
        ({"HIP_VISIBLE_DEVICES": "1"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ("1",)),
        ({"ROCR_VISIBLE_DEVICES": "1"}, ("0",)),
        ({"HIP_VISIBLE_DEVICES": ""}, ()),
    ],
)
def test_gpus_of_amd_go_by_their_own_variables(
    tmp_path: Path, environment: dict[str, str], names: tuple[str, ...]
) -> None:
    for number, gpu in enumerate(("0", "5592", "1234")):  # the first node is the processor
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "gpu_id").write_text(f"{gpu}\n")
    found = gpus_of(environment, machine=nvidia(tmp_path, None))
    assert found == Gpus(names, "HIP_VISIBLE_DEVICES", none="-1")
    assert found.environment([]) == {"HIP_VISIBLE_DEVICES": "-1"}


def test_apples_gpu_is_one_without_a_name(tmp_path: Path) -> None:
    found = gpus_of({}, machine=Machine(devices=tmp_path, kfd=tmp_path, nvidia_smi=lambda: None, apple=True))
    assert len(found.names) == 1
    assert found.environment([0]) == {}


def test_gpus_are_counted_with_that_do_not_exist(tmp_path: Path) -> None:
    assert gpus_of({}, 1, nvidia(tmp_path, SMI)) == Gpus(("0",), "CUDA_VISIBLE_DEVICES")
    assert gpus_of({}, 4, nvidia(tmp_path, None)) == Gpus(("0", "1", "2", "3"), "CUDA_VISIBLE_DEVICES", real=False)


def groups(folder: Path, lines: str, **files: str) -> list[Path]:
    root = folder / "cgroup"
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "self").write_text(lines)
    return machine.control_groups(folder / "self", root)


@pytest.mark.parametrize("version", [1, 2])
def test_cores_and_memory_are_those_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    if version == 2:
        files = {
            "job__cpu_DOT_max": "150000 100000\n",
            "job__memory_DOT_max": "max\n",
            "cpu_DOT_max": "max 100000\n",
            "memory_DOT_max": "1000000000\n",
            "memory_DOT_current": "700000000\n",
            "memory_DOT_stat": "anon 1\ninactive_file 200000000\n",
        }
        found = groups(tmp_path, "0::/job/step\n", **files)
    else:
        files = {
            "cpu,cpuacct__cpu_DOT_cfs_quota_us": "150000\n",
            "cpu,cpuacct__cpu_DOT_cfs_period_us": "100000\n",
            "memory__memory_DOT_limit_in_bytes": "1000000000\n",
            "memory__memory_DOT_usage_in_bytes": "700000000\n",
            "memory__memory_DOT_stat": "inactive_file 1\ntotal_inactive_file 200000000\n",
        }
        found = groups(tmp_path, "4:memory:/docker/of-the-host\n3:cpu,cpuacct:/docker/of-the-host\n0::/\n", **files)
    monkeypatch.setattr(machine, "control_groups", lambda: found)
    assert machine.cores() == 1
    assert machine.total_memory() == 1_000_000_000
    assert machine.available_memory() == 500_000_000


def test_what_says_no_limit_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = machine.total_memory()
    files = {
        "cpu__cpu_DOT_cfs_quota_us": "-1\n",
        "cpu__cpu_DOT_cfs_period_us": "100000\n",
        "memory__memory_DOT_limit_in_bytes": "9223372036854771712\n",
    }
    found = groups(tmp_path, "4:memory:/\n3:cpu:/\n2:pids:/\n", **files)
    monkeypatch.setattr(machine, "control_groups", lambda: found)
    assert len(found) == 2
    assert machine.total_memory() >= everything
    assert machine.available_memory() > 0


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


SLEEP = """
import os, time
def do(job):
    time.sleep(0.2)
    names = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "HARNESS_GPU_SHARE")}
    return names
"""


def execute(root: Path, jobs: list[PlannedJob], gpus: int | None = None) -> None:
    executor = Executor(Settings(root, gpus=gpus))
    executor.check(jobs)
    outcomes = Runner(executor, Recorder()).run(jobs)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}


@pytest.fixture
def sleeping(tmp_path: Path) -> str:
    (tmp_path / "sleeping.py").write_text(SLEEP)
    return f"{tmp_path / 'sleeping.py'}:do"


def overlapping(answers: list[dict[str, object]]) -> list[tuple[dict[str, object], dict[str, object]]]:
    return [
        (one, other)
        for index, one in enumerate(answers)
        for other in answers[index + 1 :]
        if one["begin"] < other["end"] and other["begin"] < one["end"]  # type: ignore[operator]
    ]


def test_jobs_on_eight_gpus_have_each_its_own(tmp_path: Path, sleeping: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 16)
    jobs = told(tmp_path, 24, Resources(gpus=1, memory=10**6), uses=("sqlite3",), do=sleeping)
    jobs[0].resources = Resources(gpus=3, gpus_required=True, memory=10**6)
    jobs[1].resources = Resources(memory=10**6)
    execute(tmp_path, jobs, gpus=8)
    answers = said(jobs)
    names = [set(filter(None, answer["said"]["CUDA_VISIBLE_DEVICES"].split(","))) for answer in answers]
    assert [len(each) for each in names] == [3, 0, *[1] * 22]
    assert set.union(*names) == set("01234567")
    for answer, each in zip(answers, names, strict=True):
        answer["names"] = each
        assert answer["said"]["HARNESS_GPU_SHARE"] is None
    assert overlapping(answers)
    for one, other in overlapping(answers):
        assert not one["names"] & other["names"]  # type: ignore[operator]


def test_small_jobs_share_a_gpu_as_far_as_it_goes(
    tmp_path: Path, sleeping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "cores", lambda: 16)
    jobs = told(tmp_path, 6, Resources(gpus=0.25, memory=10**6), uses=("sqlite3",), do=sleeping)
    execute(tmp_path, jobs, gpus=1)
    answers = said(jobs)
    assert {answer["said"]["CUDA_VISIBLE_DEVICES"] for answer in answers} == {"0"}
    assert {answer["said"]["HARNESS_GPU_SHARE"] for answer in answers} == {"0.25"}
    assert 1 < most_at_once(answers) <= 4


def test_jobs_wait_for_memory(tmp_path: Path, sleeping: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr(local, "available_memory", lambda: 10**10)
    jobs = told(tmp_path, 6, Resources(memory=4 * 10**9), uses=("sqlite3",), do=sleeping)
    execute(tmp_path, jobs)
    assert most_at_once(said(jobs)) == 2


def test_a_job_that_asks_for_more_gpus_than_there_are_is_refused_in_one_line(tmp_path: Path) -> None:
    jobs = told(tmp_path, 1, Resources(gpus=4, gpus_required=True))
    with pytest.raises(InputError, match=r"^resources\.told\.gpus: .* needs 4 GPUs, and this machine has 2; fix: "):
        Executor(Settings(tmp_path, gpus=2)).check(jobs)


def test_a_job_that_needs_more_memory_than_there_is_is_told_once_and_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs = told(tmp_path, 2, Resources(memory=10**15))
    execute(tmp_path, jobs)
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("resources.told.memory: ")
    assert line.endswith("it runs alone")
    assert most_at_once(said(jobs)) == 1


@pytest.mark.parametrize(("gpus", "cores", "usual"), [(0, 16, 1), (4, 16, 4), (8, 4, 1)])
def test_a_job_on_a_gpu_has_its_share_of_the_cores_and_one_thread_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, cores: int, usual: int
) -> None:
    monkeypatch.setattr(local, "cores", lambda: cores)
    assert Executor(Settings(tmp_path, gpus=gpus)).usual_cpus == usual


@pytest.mark.parametrize(
    ("resources", "threads"),
    [
        (Resources(), 4),
        (Resources(gpus=1), 4),
        (Resources(gpus=2), 8),
        (Resources(gpus=0.5), 2),
        (Resources(gpus=0.1), 1),
        (Resources(gpus=2, cpus=3), 3),
    ],
)
def test_cores_go_with_gpus_unless_they_are_asked_for(resources: Resources, threads: int) -> None:
    assert resources.threads(4) == threads

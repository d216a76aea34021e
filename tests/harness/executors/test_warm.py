"""Warm workers with real processes: what a fork must not leave in a job, and what happens as processes die."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.costs.resources import Resources
from harness.executors.local import Executor, Options
from harness.planning.plan import PlannedJob
from harness.scheduling.executor import Settings
from harness.scheduling.outcome import Outcome
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder
from helpers.paths import PYTHONPATH
from helpers.told_jobs import said, told


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def execute(
    root: Path, planned: list[PlannedJob], warm: bool | None = None, *, at_once: int | None = None, tries: int = 3
) -> dict[str, Outcome]:
    executor = Executor(Settings(root, options=Options(warm=warm)))
    executor.check(planned)
    return Runner(executor, Recorder(), jobs=at_once, tries=tries, delay=0.05).run(planned)


def done(outcomes: dict[str, Outcome]) -> bool:
    return {outcome.status for outcome in outcomes.values()} == {"done"}


def function(folder: Path, code: str) -> str:
    """A function of a file, for a job to call: the body of `do(job)`."""
    path = folder / "what.py"
    path.write_text("import os, time, random\ndef do(job):\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    return f"{path}:do"


def test_three_jobs_are_forked_from_one_process_that_has_loaded_their_libraries(tmp_path: Path) -> None:
    jobs = told(tmp_path, 3, uses=("sqlite3",))
    assert done(execute(tmp_path, jobs))
    answers = said(jobs)
    assert len({answer["parent"] for answer in answers}) == 1
    assert answers[0]["parent"] != os.getpid()
    for answer in answers:
        assert answer["loaded"] == ["sqlite3"]
        assert answer["session"] == answer["pid"]
        assert answer["main"] == "harness.jobs.__main__"
        assert answer["arguments"][1].endswith(".json")


@pytest.mark.parametrize(("number", "uses", "warm"), [(2, ("sqlite3",), None), (3, (), None), (3, ("sqlite3",), False)])
def test_few_jobs_light_ones_and_those_that_are_not_to_be_are_not_forked(
    tmp_path: Path, number: int, uses: tuple[str, ...], warm: bool | None
) -> None:
    jobs = told(tmp_path, number, uses=uses)
    assert done(execute(tmp_path, jobs, warm))
    for answer in said(jobs):
        assert answer["parent"] == os.getpid()
        assert answer["loaded"] == []


def test_a_forked_job_has_the_environment_of_one_that_was_started_and_nothing_of_the_jobs_before(
    tmp_path: Path,
) -> None:
    leave = function(tmp_path, 'found = os.environ.get("LEFT")\nos.environ["LEFT"] = job.output.folder\nreturn found')
    answers = {}
    for warm in (False, True):
        root = tmp_path / str(warm)
        root.mkdir()
        jobs = told(root, 3, uses=("sqlite3",), do=leave)
        assert done(execute(root, jobs, warm, at_once=1))
        answers[warm] = said(jobs)
    for cold, forked in zip(answers[False], answers[True], strict=True):
        assert forked["said"] is None
        assert forked["environment"] == cold["environment"]
        assert forked["threads"] == cold["threads"]


def test_every_forked_job_has_other_random_numbers(tmp_path: Path) -> None:
    draw = function(tmp_path, "import numpy\nreturn [random.random(), float(numpy.random.random())]")
    jobs = told(tmp_path, 3, uses=("numpy",), do=draw)
    assert done(execute(tmp_path, jobs))
    drawn = [tuple(answer["said"]) for answer in said(jobs)]
    assert len({one for one, _ in drawn}) == len({two for _, two in drawn}) == 3


def test_the_peak_memory_of_a_forked_job_is_its_own(tmp_path: Path) -> None:
    take = function(
        tmp_path,
        'from harness.runs.environment import peak_memory\nif job.output.folder.endswith("0"):\n'
        '    block = b"x" * 300_000_000\nreturn peak_memory()',
    )
    jobs = told(tmp_path, 3, uses=("sqlite3",), do=take)
    assert done(execute(tmp_path, jobs, at_once=1))
    large, *small = [answer["said"] for answer in said(jobs)]
    assert large > 300_000_000
    assert all(10_000_000 < peak < large - 250_000_000 for peak in small)


def test_a_file_that_changed_is_read_anew_by_the_next_job(tmp_path: Path) -> None:
    path = tmp_path / "counts.py"
    path.write_text(
        "NUMBER = 0\ndef do(job):\n    text = open(__file__).read()\n"
        "    open(__file__, 'w').write(text.replace(f'NUMBER = {NUMBER}', f'NUMBER = {NUMBER + 1}'))\n"
        "    return NUMBER\n"
    )
    jobs = told(tmp_path, 3, uses=("sqlite3",), do=f"{path}:do")
    assert done(execute(tmp_path, jobs, at_once=1))
    assert sorted(answer["said"] for answer in said(jobs)) == [0, 1, 2]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_job_computes_with_the_threads_and_so_the_bytes_of_one_that_was_started(
    tmp_path: Path, threads: int
) -> None:
    compute = function(
        tmp_path,
        "import torch, numpy, hashlib\nfrom threadpoolctl import threadpool_info\n"
        "generator = torch.Generator().manual_seed(1)\n"
        "a, b = (torch.randn(700, 500, generator=generator) for _ in range(2))\n"
        "product = (a @ b.T).softmax(0).sum(1)\nother = a.numpy() @ b.numpy().T\n"
        "pools = sorted((each['internal_api'], each['num_threads']) for each in threadpool_info())\n"
        "digests = [hashlib.sha256(each.tobytes()).hexdigest() for each in (product.numpy(), other)]\n"
        "return [torch.get_num_threads(), torch.get_num_interop_threads(), pools, digests]",
    )
    answers = []
    for warm in (False, True):
        root = tmp_path / str(warm)
        root.mkdir()
        jobs = told(root, 1, Resources(cpus=threads, memory=10**6), uses=("torch",), do=compute)
        assert done(execute(root, jobs, warm))
        answers.append(said(jobs)[0])
    assert answers[0]["said"] == answers[1]["said"]
    assert answers[1]["loaded"] == ["torch"]
    assert answers[1]["said"][0] == threads


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        ("no_such_library", "ModuleNotFoundError: No module named"),
        ("starts_a_thread", "threads were started by an import: mine"),
    ],
)
def test_jobs_start_by_themselves_where_their_libraries_cannot_be_loaded_before_a_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], library: str, reason: str
) -> None:
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True, name='mine').start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{PYTHONPATH}:{tmp_path}")
    jobs = told(tmp_path, 3, uses=(library,))
    assert done(execute(tmp_path, jobs))
    assert {answer["parent"] for answer in said(jobs)} == {os.getpid()}
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert reason in line


WAIT = """
marker = job.folder / "waits"
marker.write_text(f"{os.getpid()} {os.getppid()}")
while not (job.root / "go").exists():
    time.sleep(0.02)
"""


def processes_of(marker: Path) -> tuple[int, int]:
    """A waiting job's process, and its server's."""
    deadline = time.monotonic() + 60
    while not marker.exists() or not marker.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job, server = map(int, marker.read_text().split())
    return job, server


def is_gone(pid: int, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_after_the_death_of_the_server_its_jobs_are_tried_again_by_a_new_one(tmp_path: Path) -> None:
    jobs = told(tmp_path, 3, uses=("sqlite3",), do=function(tmp_path, WAIT))
    killed: list[int] = []

    def kill() -> None:
        job, server = processes_of(tmp_path / "cells/job0/waits")
        os.kill(server, signal.SIGKILL)
        killed.extend((job, server))
        assert is_gone(job)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=kill)
    thread.start()
    outcomes = execute(tmp_path, jobs, at_once=1)
    thread.join()
    assert done(outcomes)
    parents = {answer["parent"] for answer in said(jobs)}
    assert len(parents) == 1
    assert not parents & {killed[1], os.getpid()}


def test_a_server_whose_run_ended_before_it_began_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "slow_library.py").write_text("open('loaded', 'w').close()\n")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs:
        command = [sys.executable, "-m", "harness.executors._fork_server", str(theirs.fileno()), "slow_library"]
        environment = {**os.environ, "PYTHONPATH": f"{PYTHONPATH}{os.pathsep}{tmp_path}"}
        server = subprocess.run(command, pass_fds=[theirs.fileno()], cwd=tmp_path, env=environment, timeout=60)
    assert server.returncode == 0
    assert not (tmp_path / "loaded").exists()


def test_servers_and_jobs_killed_at_random_moments_harm_nothing(tmp_path: Path) -> None:
    jobs = told(tmp_path, 8, uses=("sqlite3",), do=function(tmp_path, "time.sleep(0.3)\nreturn os.getpid()"))
    over, draws, killed = threading.Event(), random.Random(7), list[int]()

    def children(pid: int) -> list[int]:
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def kill() -> None:
        while not over.wait(draws.uniform(0.3, 1.2)) and len(killed) < 6:
            servers = [
                pid for pid in children(os.getpid()) if b"_fork_server" in Path(f"/proc/{pid}/cmdline").read_bytes()
            ]
            targets = [job for server in servers for job in children(server)] or servers
            if targets:
                killed.append(draws.choice(targets))
                os.kill(killed[-1], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        outcomes = execute(tmp_path, jobs, tries=20)
    finally:
        over.set()
        thread.join()
    assert killed
    assert done(outcomes)
    for answer in said(jobs):
        assert answer["said"] == answer["pid"]
        assert answer["pid"] not in killed


RUN = """
from pathlib import Path
from harness.executors.local import Executor, Options
from harness.scheduling.executor import Settings
from harness.scheduling.runner import Runner
from helpers.executor_runs import Recorder
from helpers.told_jobs import told
root = Path({root!r})
jobs = told(root, 3, uses=("sqlite3",), do={do!r})
executor = Executor(Settings(root, options=Options()))
executor.check(jobs)
Runner(executor, Recorder(), jobs=1).run(jobs)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_server_and_jobs_end_with_the_run(tmp_path: Path, number: signal.Signals) -> None:
    run = subprocess.Popen([sys.executable, "-c", RUN.format(root=str(tmp_path), do=function(tmp_path, WAIT))])
    job, server = processes_of(tmp_path / "cells/job0/waits")
    assert server != run.pid
    run.send_signal(number)
    if number == signal.SIGTERM:
        time.sleep(0.3)
        run.send_signal(number)
    run.wait(30)
    assert is_gone(job)
    assert is_gone(server)


def test_a_server_that_still_loads_ends_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text(
        f"import os, time\nopen({str(tmp_path / 'loads')!r}, 'w').write(f'{{os.getpid()}} 0')\ntime.sleep(60)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{PYTHONPATH}:{tmp_path}")
    code = RUN.format(root=str(tmp_path), do="").replace('"sqlite3"', '"slow"')
    run = subprocess.Popen([sys.executable, "-c", code])
    server, _ = processes_of(tmp_path / "loads")
    run.kill()
    run.wait(10)
    assert is_gone(server)

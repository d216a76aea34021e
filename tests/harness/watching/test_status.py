"""The state of a run from its folder: while it goes on, after it was killed, with two harnesses, and of ten thousand outputs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.cli import main
from harness.runs.job_state import JobState
from harness.runs.which_process import machine
from harness.scheduling import run_process
from harness.scheduling.event_log import events_file
from harness.watching import liveness
from harness.watching.page import PAGE
from harness.watching.status import read_status
from helpers.paths import PYTHONPATH
from helpers.watched_runs import run_watched, running, trainings, until, write_run_file

A, B, C, D = "t__s/kd/seed1", "t__s/kd/seed2", "t__s/sft/seed1", "t__s/sft/seed2"


@pytest.fixture(autouse=True)
def fake_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["status", *map(str, arguments)])


def as_json(root: Path) -> dict[str, Any]:
    return json.loads(command(root, "--json").stdout)


def cells_of(root: Path) -> dict[str, str]:
    return dict(read_status(root).cells.states)


def test_a_run_that_has_ended_well_says_so(tmp_path: Path) -> None:
    write_run_file(tmp_path, A, B)
    run_watched(tmp_path, *trainings(tmp_path, {A: "ok", B: "ok"}))
    result = command(tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == ["fakes", "has", "ended"]
    assert "2/2 cells" in result.stdout
    assert "No harness" not in result.stdout


def test_what_runs_what_waits_and_who_runs_it_is_seen_from_another_process(tmp_path: Path) -> None:
    write_run_file(tmp_path, A, B, C, D)
    with running(tmp_path, {A: "ok", B: "fail", C: "wait", D: "ok"}, jobs=1) as process:
        until(
            lambda: (
                cells_of(tmp_path).get(C) == "running" and read_status(tmp_path).snapshot.running[0].state == "running"
            )
        )
        until(lambda: cells_of(tmp_path)[A] == "done" and cells_of(tmp_path)[B] == "failed")
        told = as_json(tmp_path)
        assert told["cells"] == {"done": 1, "running": 1, "waiting": 1, "failed": 1, "skipped": 0}
        assert told["lives"]
        assert (told["jobs_done"], told["jobs"]) == (2, 4)
        (job,) = told["running"]
        assert (job["id"], job["title"], job["cell"], job["attempt"]) == (f"{C}/train", f"train {C}", C, 1)
        assert job["memory"] > 2**20
        assert 0 <= job["beat_seconds"] < 60
        (failure,) = told["failures"]
        assert (failure["title"], failure["reason"]) == (f"train {B}", "RuntimeError: the reason")
        assert Path(failure["log"]).is_file()
        assert [each["pid"] for each in told["harnesses"]] == [process.pid]
        result = command(tmp_path)
        assert result.exit_code == 1
        assert f"FAIL train {B}: RuntimeError: the reason" in result.stdout
        assert f"log: {tmp_path}/cells/{B}/train/log.txt" in result.stdout
        assert f"waiting     {D}" in result.stdout
        assert f"Harness: process {process.pid}" in result.stdout
        (tmp_path / "gate").touch()
        assert process.wait(60) == 0
    assert as_json(tmp_path)["cells"] == {"done": 3, "running": 0, "waiting": 0, "failed": 1, "skipped": 0}
    assert as_json(tmp_path)["closed"]


def test_after_a_kill_nobody_runs_it_and_its_job_was_interrupted(tmp_path: Path) -> None:
    write_run_file(tmp_path, A, B)
    with running(tmp_path, {A: "wait", B: "ok"}, jobs=1) as process:
        until(lambda: JobState.read(tmp_path, f"{A}/train") is not None)
        until(lambda: (tmp_path / f"cells/{A}/train/part").exists())
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
    until(lambda: not read_status(tmp_path).snapshot.running)  # the job ends with its harness
    told = as_json(tmp_path)
    assert (told["lives"], told["closed"], told["harnesses"]) == (False, False, [])
    states = {each["cell"]: each for each in told["cell_states"]}
    assert states[A]["state"] == "waiting"
    assert states[A]["outputs"][0]["reason"] == "interrupted"
    result = command(tmp_path)
    assert result.exit_code == 0
    assert f"interrupted {A}" in result.stdout
    assert f"waiting     {B}" in result.stdout
    assert "No harness runs it; fix: the same `harness run` command" in result.stdout


def test_two_harnesses_of_one_run_are_both_seen(tmp_path: Path) -> None:
    write_run_file(tmp_path, A, B)
    with running(tmp_path, {A: "wait"}) as first, running(tmp_path, {A: "wait", B: "wait"}) as second:
        until(lambda: len(read_status(tmp_path).processes) == 2)
        until(lambda: cells_of(tmp_path) == {A: "running", B: "running"})
        assert {each.pid for each in read_status(tmp_path).processes} == {first.pid, second.pid}
        (tmp_path / "gate").touch()
        assert (first.wait(60), second.wait(60)) == (0, 0)
    assert cells_of(tmp_path) == {A: "done", B: "done"}


def test_what_was_left_out_because_something_failed_is_skipped(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    (bad,) = trainings(tmp_path, {"x": "fail"})
    (after,) = trainings(tmp_path, {A: "ok"})
    run_watched(tmp_path, after.model_copy(update={"after": (bad,)}))
    assert cells_of(tmp_path)[A] == "skipped"
    assert command(tmp_path).exit_code == 1


def test_hostile_titles_and_reasons_are_text(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    (step,) = trainings(tmp_path, {A: "fail"})
    evil = "\x1b[2J\x1b]0;t\x07[bold]<script>x</script>\u202e"
    run_watched(tmp_path, step.model_copy(update={"title": evil}))
    result = command(tmp_path)
    assert "FAIL [bold]<script>x</script>: RuntimeError: the reason" in result.stdout
    assert "\x1b" not in result.stdout
    assert "\x1b" not in (tmp_path / PAGE).read_text()
    assert "&lt;script&gt;x&lt;/script&gt;" in (tmp_path / PAGE).read_text()


@pytest.mark.parametrize("what", ["nothing", "absent", "damaged"])
def test_a_folder_without_a_run_is_refused(tmp_path: Path, what: str) -> None:
    root = tmp_path / ("absent" if what == "absent" else ".")
    if what == "damaged":
        (tmp_path / "run.json").write_text("{")
    result = command(root)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "fix: " in line


def test_watch_and_json_do_not_go_together(tmp_path: Path) -> None:
    result = command(tmp_path, "--watch", "--json")
    assert (result.exit_code, "do not go together" in result.stderr) == (2, True)


def test_the_page_can_be_asked_for(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    result = command(tmp_path, "--html", tmp_path / "page.html")
    assert result.exit_code == 0
    text = (tmp_path / "page.html").read_text()
    assert "0 of 1 done" in text
    assert 'http-equiv="refresh"' not in text
    assert command(tmp_path, "--html", tmp_path / "no/page.html").exit_code == 2


# --- another machine ---


def of_another_machine(root: Path, beat: float) -> Path:
    """The folder of a harness process of another machine, whose beat is so many seconds old by our clock."""
    folder = root / ".harness/runs/20260101T000000-abcdef"
    folder.mkdir(parents=True)
    job = {
        "id": f"{A}/train",
        "kind": "train",
        "title": f"train {A}",
        "folder": f"cells/{A}/train",
        "outputs": [f"cells/{A}/train"],
    }
    about = {"run": folder.name, "host": "far", "machine": "far/boot/1", "pid": 1, "started": "2026-01-01T00:00:00Z"}
    (folder / "run.json").write_text(json.dumps({**about, "executor": "slurm", "command": [], "jobs": [job]}))
    (folder / "beat").write_text("1\n")
    moment = time.time() - beat
    os.utime(folder / "beat", (moment, moment))
    os.utime(folder / "run.json", (moment - 600, moment - 600))
    return folder


def state_of_another_machine(root: Path, age: float) -> None:
    path = JobState.path(root, f"{A}/train")
    path.parent.mkdir(parents=True)
    state = JobState(
        job=f"{A}/train",
        folder=f"cells/{A}/train",
        outputs=[f"cells/{A}/train"],
        state="running",
        host="far",
        machine="far/boot/1",
        pid=1,
    )
    path.write_text(state.model_dump_json())
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_harness_of_another_machine_lives_while_its_beat_is_fresh(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    of_another_machine(tmp_path, beat=3)
    assert read_status(tmp_path).snapshot.lives


@pytest.mark.parametrize("beat", [100.0, -5000.0, 5000.0])
def test_where_its_clock_differs_two_looks_tell(tmp_path: Path, beat: float, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = of_another_machine(tmp_path, beat)
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)

    assert liveness.living(tmp_path, sleep) == []

    def beating(seconds: float) -> None:
        (folder / "beat").write_text("2\n")

    assert [process.host for _, process in liveness.living(tmp_path, beating)] == ["far"]
    assert waits == [2 * run_process.BEAT_SECONDS]
    (folder / "closed").touch()
    assert liveness.living(tmp_path, beating) == []


@pytest.mark.parametrize(("age", "state"), [(5.0, "running"), (200.0, "silent")])
def test_a_job_of_another_machine_is_silent_when_its_state_is_old(tmp_path: Path, age: float, state: str) -> None:
    write_run_file(tmp_path, A)
    of_another_machine(tmp_path, beat=3)
    state_of_another_machine(tmp_path, age)
    (job,) = read_status(tmp_path).snapshot.running
    assert (job.state, job.place) == (state, "far")


def test_a_state_that_is_older_than_all_harnesses_is_of_a_killed_job(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    of_another_machine(tmp_path, beat=3)
    state_of_another_machine(tmp_path, 2000.0)
    assert read_status(tmp_path).snapshot.running == []
    assert cells_of(tmp_path) == {A: "waiting"}


def test_a_job_of_this_machine_whose_process_is_gone_does_not_run(tmp_path: Path) -> None:
    write_run_file(tmp_path, A)
    of_another_machine(tmp_path, beat=3)
    state_of_another_machine(tmp_path, 1.0)
    path = JobState.path(tmp_path, f"{A}/train")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"machine": machine(), "pid": os.getpid(), "born": 1.0}))
    assert read_status(tmp_path).snapshot.running == []


# --- size ---


def large_run(root: Path, cells: int) -> None:
    """A run of so many cells, done but for a hundred, as far as a status reads it."""
    names = [f"teacher{k % 5}__student/method{k % 20}/seed{k}" for k in range(cells)]
    write_run_file(root, *names)
    parts = {f"part{k}": {"name": "x" * 40, "values": list(range(20))} for k in range(20)}
    manifest = {
        "kind": "train", "title": "train x", "identity": {"version": 2, "hash": "0" * 64, "parts": parts}, "state": "done",
        "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:10:00Z", "seconds": 600.0,
    }  # fmt: skip
    text = json.dumps(manifest)
    state = JobState(job="x", state="done").model_dump_json()
    for name in names[: cells - 100]:
        folder = root / "cells" / name / "train"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(text)
        path = JobState.path(root, f"train:{name}")
        path.parent.mkdir(parents=True)
        path.write_text(state)
    line = json.dumps(
        {
            "time": "2026-01-01T00:00:00.000Z",
            "run": "r",
            "event": "progress",
            "job": "train:x",
            "metrics": {"loss": 1.0},
        }
    )
    with events_file(root).open("w") as stream:
        stream.writelines(f"{line}\n" for _ in range(5 * cells))


def test_ten_thousand_outputs_cost_little_more_per_output_than_a_thousand(tmp_path: Path) -> None:
    seconds = {}
    for cells in (1000, 10_000):
        large_run(tmp_path / str(cells), cells)
        read_status(tmp_path / str(cells))  # into the caches of the system
        begun = time.process_time()
        status = read_status(tmp_path / str(cells))
        seconds[cells] = time.process_time() - begun
        assert status.snapshot.cells == {"done": cells - 100, "waiting": 100}
    print(seconds)
    assert seconds[10_000] < 15 * seconds[1000]
